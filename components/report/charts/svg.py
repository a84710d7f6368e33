"""Matplotlib figures as SVG that sits inside an HTML page: no ids that collide, no dates, colours from CSS."""

import io
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from components.report.theme import placeholder, variables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DROPPED = {"metadata", "style"}
_LOCAL_URL = re.compile(r"url\(#([^)]+)\)")
_COLOUR = re.compile(r"#0102[0-9a-f]{2}")


@contextmanager
def figure(width: float, height: float) -> Iterator["Figure"]:
    """A figure of that many points (1/72 inch) in the report's style.

    Measurements of its texts hold in the SVG, which always has 72 dots an inch.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "text.parse_math": False,  # a candidate's name with a dollar sign is no formula
        "svg.fonttype": "none",  # text stays text: selectable, searchable, a tenth of the size
        "svg.hashsalt": "hasten",  # the same board gives the same bytes
        "font.family": "DejaVu Sans",  # comes with matplotlib; wider than what browsers show, so that texts keep clear
        "font.size": 9.5,
        "text.color": placeholder("ink"),
        "axes.edgecolor": placeholder("grid"),
        "axes.labelcolor": placeholder("muted"),
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": placeholder("grid"),
        "grid.linewidth": 0.6,
        "xtick.color": placeholder("grid"),
        "ytick.color": placeholder("grid"),
        "xtick.labelcolor": placeholder("muted"),
        "ytick.labelcolor": placeholder("muted"),
    }
    with matplotlib.rc_context(style):
        drawing = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none", layout="constrained")
        FigureCanvasAgg(drawing)
        yield drawing


def inline(drawing: "Figure", prefix: str, title: str, description: str) -> str:
    """The figure as an `<svg>` element for an HTML page; `prefix` keeps its ids apart from other charts'."""
    buffer = io.StringIO()
    drawing.savefig(
        buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")), transparent=True
    )
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 (written by matplotlib a line ago)
    _clean(root, prefix)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-description")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{prefix}-{'title' if tag == 'title' else 'description'}"})
        element.text = text
        root.insert(position, element)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _clean(root: ElementTree.Element, prefix: str) -> None:
    colours = variables()
    names = {
        element.get("id"): f"{prefix}-{number}"
        for number, element in zip(itertools.count(), (each for each in root.iter() if each.get("id")), strict=False)
    }
    for element in root.iter():
        element.tag = _local(element.tag)
        for child in [each for each in element if _local(each.tag) in _DROPPED]:
            element.remove(child)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            value = _LOCAL_URL.sub(lambda match: f"url(#{names[match.group(1)]})", value)
            value = _COLOUR.sub(lambda match: colours.get(match.group(), match.group()), value)
            if key == "id":
                value = names[value]
            elif _local(key) == "href":
                value = f"#{names[value.removeprefix('#')]}"
            element.set(_local(key), value)


def _local(name: str) -> str:
    """A tag or attribute without its XML namespace, as HTML wants it."""
    return name.rpartition("}")[2]
