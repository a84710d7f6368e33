"""Writes the report of a run: `leaderboard.json`, `report.md` and `report.html`."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.contracts.job import Job, Task
from components.core.contracts.leaderboard import Leaderboard
from components.core.files import write_bytes_atomic
from components.core.formats import markdown, plain
from components.core.stepping import progress
from components.report.charts.bars import bars
from components.report.charts.scatter import scatter
from components.report.examples import examples
from components.report.strip import TRUTH, Strip, strip
from components.report.theme import css
from components.report.view import View, focus_of, row_of, view

if TYPE_CHECKING:
    from markupsafe import Markup

LEADERBOARD, MARKDOWN, HTML = "leaderboard.json", "report.md", "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


def run_report(job: Job, board: Leaderboard, bundle: Path, out: Path, command: str) -> None:
    """Writes the three files into `out`, each whole or not at all; the same input gives the same bytes.

    Args:
        job: what was asked for.
        board: the final board (`finish` of the leaderboard step).
        bundle: output of `fetch`, for the test samples; without it the report has no pictures and says why.
        out: folder, made when it is not there.
        command: what to type to get this report again.
    """
    out.mkdir(parents=True, exist_ok=True)
    told = view(board, job)
    progress("drawing test samples", 0, 3)
    shown = [row for row in (row_of(board, board.baseline), focus_of(board)) if row is not None]
    rows = list({row.id: row for row in shown}.values())
    pictures = strip(rows, bundle) if job.task is Task.DETECTION else examples(job, rows, bundle)
    progress("drawing charts", 1, 3)
    charts = {"scatter": scatter(board), "bars": bars(board)}
    progress("writing the report", 2, 3)
    write_bytes_atomic(out / LEADERBOARD, leaderboard_json(board).encode())
    write_bytes_atomic(out / MARKDOWN, render_markdown(told, command).encode())
    write_bytes_atomic(out / HTML, render_html(told, pictures, charts, command).encode())
    progress("writing the report", 3, 3)


def leaderboard_json(board: Leaderboard) -> str:
    """The board as strict JSON: a number that is none (NaN, infinite) in a step's notes becomes null."""
    return json.dumps(_finite(board.model_dump(mode="json")), indent=2, allow_nan=False) + "\n"


def render_html(told: View, pictures: Strip, charts: dict[str, str | None], command: str) -> str:
    """The report as one HTML page that fetches nothing; `charts` are inline SVG."""
    from markupsafe import Markup

    page = _template("report.html.j2", _as_text, escape=True)
    return str(
        page.render(
            report=told,
            strip=pictures,
            # Ours, with every text in it escaped by the XML writer.
            charts={name: Markup(svg) for name, svg in charts.items() if svg},  # noqa: S704
            light=Markup(css(dark=False)),  # noqa: S704
            dark=Markup(css(dark=True)),  # noqa: S704
            command=Markup.escape(_lines(command)),
            truth=TRUTH,
        )
    )


def render_markdown(told: View, command: str) -> str:
    """The report as Markdown, without pictures."""
    from markupsafe import Markup

    text = _lines(command)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    page = _template("report.md.j2", _as_markdown, escape=False)
    return str(page.render(report=told, command=Markup(f"{fence}sh\n{text}\n{fence}")))  # noqa: S704 (no HTML)


def _template(name: str, finalize: Callable[[Any], Any], *, escape: bool) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=escape,  # noqa: S701 (Markdown has an escape of its own, in finalize)
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _as_text(value: Any) -> Any:
    """Every value that a template prints, one printable line each unless it is markup of ours."""
    return value if _is_markup(value) else plain(value)


def _as_markdown(value: Any) -> Any:
    return value if _is_markup(value) else markdown(value)


def _is_markup(value: "Any | Markup") -> bool:
    from markupsafe import Markup

    return isinstance(value, Markup)


def _lines(command: str) -> str:
    """A command without control characters; its line ends and its spaces stay."""
    lines = ("".join(char if char.isprintable() else " " for char in line) for line in command.splitlines())
    return "\n".join(line for line in lines if line.strip())


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
