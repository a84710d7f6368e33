import base64
import io
import json

import numpy as np
import pytest
import report_boards as boards
from PIL import Image

from components.core.tasks.detection import Detections, read_split, write_detections
from components.report.strip import IMAGES, chosen, compare, strip


def test_a_box_finds_one_object_and_only_one_of_its_class(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", images=1, classes=("tree", "bush"))
    path = bundle / "data/test/annotations.json"
    document = json.loads(path.read_text())
    document["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [60, 60, 20, 20], "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 2, "bbox": [100, 100, 20, 20], "iscrowd": 0},
        {"id": 4, "image_id": 1, "category_id": 1, "bbox": [0, 0, 200, 200], "iscrowd": 1},
        {"id": 5, "image_id": 2, "category_id": 1, "bbox": [10, 10, 20, 20], "iscrowd": 0},
    ]
    path.write_text(json.dumps(document))
    split = read_split(path, bundle / "data/test/images")
    boxes = np.array([[11, 11, 31, 31], [10, 10, 30, 30], [75, 60, 95, 80], [100, 100, 120, 120]], np.float32)
    score = compare(boxes, np.array([1, 1, 1, 1]), split, 1)
    assert score == (4, 1, 3)  # twice the first tree; the second shifted too far; the bush called a tree
    assert compare(boxes[3:], np.array([2]), split, 1) == (1, 1, 3)
    assert compare(boxes[:0], np.array([], np.int64), split, 1) == (0, 0, 3)


def test_images_are_spread_over_the_split_and_the_same_for_all_rows(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", images=10)
    rows = boards.with_detections(boards.rows()[:2], tmp_path / "detections", bundle)
    found = strip(rows, bundle)
    assert [pair.name for pair in found.pairs] == [f"window_{number:02}.png" for number in (1, 4, 7, 10)]
    assert [[panel.candidate for panel in pair.panels] for pair in found.pairs] == [["eager", "fp32-onnxruntime"]] * 4
    assert found.note == ""


def test_images_without_objects_or_without_detections_are_passed_over(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", images=4)
    split = read_split(bundle / "data/test/annotations.json", bundle / "data/test/images")
    split.document["annotations"] = [record for record in split.document["annotations"] if record["image_id"] != 2]
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    seen = {f"window_{number:02}.png": nothing for number in (1, 2, 3)}
    assert [image.id for image in chosen(split, [(boards.rows()[0], seen)])] == [1, 3]
    split.document["annotations"] = []
    assert len(chosen(split, [(boards.rows()[0], seen)])) == 3 <= IMAGES


def test_low_scores_are_neither_drawn_nor_counted_and_the_truth_is(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", images=1)
    drawn = {}
    for name, score in (("high", 0.9), ("low", 0.49)):
        path = tmp_path / f"{name}.json"
        box = Detections(np.array([[40, 40, 160, 160]], np.float32), np.array([score], np.float32), np.array([1]))
        write_detections(path, {"window_01.png": box})
        row = boards.rows()[0].model_copy(update={"id": name, "details": {"detections": str(path)}})
        (pair,) = strip([row], bundle).pairs
        drawn[name] = pair.panels[0]
    assert drawn["high"].words.startswith("1 boxes, ")
    assert drawn["low"].words.startswith("0 boxes, ")
    assert drawn["low"].words.endswith(" of 5 objects found")
    pictures = {name: pixels(panel.picture.uri) for name, panel in drawn.items()}
    assert yellow(pictures["high"]) > 500 > yellow(pictures["low"])
    assert min(blue(picture) for picture in pictures.values()) > 200


@pytest.mark.parametrize(
    "box", [[-1e9, -1e9, 1e9, 1e9], [150, 150, 40, 40], [60, 60, 60, 60], [5000, 5000, 6000, 6000]]
)
def test_odd_boxes_do_not_stop_the_drawing(tmp_path, box):
    bundle = boards.make_bundle(tmp_path / "bundle", images=1)
    path = tmp_path / "d.json"
    write_detections(
        path, {"window_01.png": Detections(np.array([box], np.float32), np.array([0.9], np.float32), np.array([77]))}
    )
    row = boards.rows()[0].model_copy(update={"details": {"detections": path.as_uri()}})
    assert len(strip([row], bundle).pairs) == 1


def test_what_cannot_be_read_is_named(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", images=2)
    rows = boards.with_detections(boards.rows()[:1], tmp_path / "detections", bundle)
    (bundle / "data/test/images/window_01.png").write_bytes(b"no picture")
    broken = rows[0].model_copy(update={"id": "broken", "details": {"detections": str(tmp_path / "none.json")}})
    half = rows[0].model_copy(update={"id": "half", "details": {"detections": str(tmp_path / "half.json")}})
    (tmp_path / "half.json").write_text('{"window_01.png": {"boxes": [[1')
    silent = rows[0].model_copy(update={"id": "silent", "details": {}})
    found = strip([*rows, broken, half, silent], bundle)
    assert [pair.name for pair in found.pairs] == ["window_02.png"]
    for said in ("detections of broken", "detections of half", "silent has no detections", "window_01.png"):
        assert said in found.note


def test_a_file_name_cannot_reach_out_of_the_bundle(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", images=1)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "secret.png")
    path = bundle / "data/test/annotations.json"
    outside = "../../../../secret.png"
    path.write_text(path.read_text().replace("window_01.png", outside))
    rows = boards.with_detections(boards.rows()[:1], tmp_path / "detections", bundle)
    found = strip(rows, bundle)
    assert found.pairs == ()
    assert "climbs out of its folder" in found.note


def test_images_shrink_until_they_fit_the_budget(tmp_path, monkeypatch):
    bundle = boards.make_bundle(tmp_path / "bundle", side=600)
    rows = boards.with_detections(boards.rows()[:2], tmp_path / "detections", bundle)
    large = strip(rows, bundle).pairs
    total = sum(len(panel.picture.uri) for pair in large for panel in pair.panels)
    monkeypatch.setattr("components.report.strip.BUDGET", total // 3)
    small = strip(rows, bundle).pairs
    assert sum(len(panel.picture.uri) for pair in small for panel in pair.panels) <= total // 3
    assert small[0].panels[0].picture.width < large[0].panels[0].picture.width
    assert len(small) == len(large)


def test_each_class_has_its_colour(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", classes=("RBC", "WBC", "Platelets"))
    rows = boards.with_detections(boards.rows()[:1], tmp_path / "detections", bundle)
    classes = strip(rows, bundle).classes
    assert [name for name, _ in classes] == ["RBC", "WBC", "Platelets"]
    assert len({colour for _, colour in classes}) == 3


def pixels(uri: str):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def yellow(picture) -> int:
    red, green, blue_ = picture[..., 0], picture[..., 1], picture[..., 2]
    return int(((red > 200) & (green > 190) & (blue_ < 130)).sum())


def blue(picture) -> int:
    red, green, blue_ = picture[..., 0], picture[..., 1], picture[..., 2]
    return int(((blue_ > 190) & (red < 140) & (green > 140)).sum())
