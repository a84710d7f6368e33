import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.samples import trees
from pipelines.samples.trees import MIN_BOX, WINDOW, clip_to_window, prepare_trees, read_boxes, window_offsets


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Two small photographs in place of the wheel's, with three boxes each, one of them too small."""
    folder = tmp_path / "source"
    folder.mkdir()
    objects = "".join(
        f"<object><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + w}</ymax></bndbox></object>"
        for x, y, w in ((20, 30, 40), (400, 100, 60), (10, 10, MIN_BOX - 1))
    )
    for image in (trees.TRAIN_IMAGE, trees.TEST_IMAGE):
        Image.effect_noise((500, 450), 40).convert("RGB").save(folder / f"{image}.png")
        (folder / f"{image}.xml").write_text(f"<annotation>{objects}</annotation>")
    monkeypatch.setattr(trees, "extract_from_wheel", lambda *_: pytest.fail("everything is here already"))
    return tmp_path


def test_the_photographs_become_windows_with_boxes(source):
    prepare_trees(source)
    document = json.loads((source / "train.json").read_text())
    assert len(document["images"]) == 4
    with Image.open(source / "images" / document["images"][0]["file_name"]) as window:
        assert window.size == (WINDOW, WINDOW)
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert min(x, y) >= 0
        assert x + width <= WINDOW >= y + height
        assert min(width, height) >= MIN_BOX


def test_preparing_twice_leaves_every_file_alone(source):
    prepare_trees(source)
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()}
    prepare_trees(source)
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()} == before


def test_a_damaged_window_is_made_again(source):
    prepare_trees(source)
    window = next((source / "images").iterdir())
    whole = window.read_bytes()
    window.write_bytes(whole[:100])
    prepare_trees(source)
    assert window.read_bytes() == whole


def test_small_boxes_are_dropped(source):
    assert read_boxes(source / "source" / f"{trees.TRAIN_IMAGE}.xml") == [(20, 30, 60, 70), (400, 100, 460, 160)]


@given(st.integers(WINDOW, 5000))
def test_windows_cover_the_whole_length(length):
    offsets = window_offsets(length)
    assert offsets[0] == 0
    assert offsets[-1] == length - WINDOW or length <= WINDOW
    assert all(later - earlier <= WINDOW for earlier, later in itertools.pairwise(offsets))


def test_a_tree_that_is_mostly_outside_is_dropped():
    assert clip_to_window([(-30, 0, 20, 40)], 0, 0, WINDOW) == [(0, 0, 20, 40)]
    assert clip_to_window([(-70, 0, 20, 40)], 0, 0, WINDOW) == []
