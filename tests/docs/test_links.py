"""Links of the documentation lead somewhere, and its picture can be read in light and dark."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from blocks import PAGES, ROOT


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert not target.startswith(("http://", "https://")) or "keepachangelog" in target, target
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_list() -> None:
    listed = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in listed] == []


def test_the_picture_is_readable_in_light_and_dark() -> None:
    text = (ROOT / "docs" / "architecture.svg").read_text()
    picture = ET.fromstring(text)
    assert picture.attrib["role"] == "img"
    assert [child.tag.rpartition("}")[2] for child in picture][:2] == ["title", "desc"]
    assert "<script" not in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    colours = set(re.findall(r"\.(\w+) \{[^}]*(?:fill|stroke): #", light))
    assert colours == set(re.findall(r"\.(\w+) \{[^}]*(?:fill|stroke): #", dark)), "a colour has no dark twin"
    used = {name for found in re.findall(r'class="([^"]+)"', text) for name in found.split()}
    assert used - {"head"} <= colours
    # Everything is inside of the frame.
    width, height = map(float, picture.attrib["viewBox"].split()[2:])
    for box in picture.iter("{http://www.w3.org/2000/svg}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        assert x + float(box.attrib["width"]) <= width
        assert y + float(box.attrib["height"]) <= height


def test_the_picture_names_what_there_is() -> None:
    text = (ROOT / "docs" / "architecture.svg").read_text()
    from pipelines.compiling import PIPELINES

    for name in PIPELINES:
        assert name in text
    for step in (
        "fetch",
        "export",
        "surgery",
        "int8",
        "fp16",
        "engine",
        "benchmark",
        "leaderboard",
        "report",
        "publish",
    ):
        assert f">{step}" in text or f" {step}" in text, step
