"""COCO reading, letterboxing and average precision, on boxes whose AP is worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.core.contracts.job import Metric
from components.core.errors import StepError, UserError
from components.core.tasks.detection import (
    Detections,
    DetectionSplit,
    drop_padding,
    evaluate,
    fit,
    in_batches,
    load_image,
    per_image,
    read_detections,
    read_split,
    unfit,
    write_detections,
)


def found(boxes, scores, labels=None) -> Detections:
    labels = labels if labels is not None else [1] * len(scores)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def write_coco(folder: Path, boxes: dict[str, list], categories=(1,), size=(100, 80), **extra) -> Path:
    """A COCO file with one 100 x 80 image a key; boxes as x1 y1 x2 y2 [category]."""
    images, annotations = [], []
    for name, truths in boxes.items():
        images.append({"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]})
        for x1, y1, x2, y2, *category in truths:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": len(images),
                    "category_id": (category or [1])[0],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": f"c{i}"} for i in categories],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document | extra))
    return path


@pytest.fixture
def split(tmp_path) -> DetectionSplit:
    return read_split(write_coco(tmp_path, {"a.png": [(10, 10, 30, 30), (50, 50, 70, 70)], "b.png": []}), tmp_path)


def test_perfect_detections_score_one(split):
    scores = evaluate({"a.png": found([[10, 10, 30, 30], [50, 50, 70, 70]], [0.9, 0.8])}, split)
    assert scores == {Metric.MAP50: pytest.approx(1), Metric.MAP: pytest.approx(1)}


def test_half_of_the_boxes_found(split):
    # Recall stops at 0.5 with precision 1: 51 of COCO's 101 recall points.
    scores = evaluate({"a.png": found([[10, 10, 30, 30]], [0.9])}, split)
    assert scores[Metric.MAP50] == pytest.approx(51 / 101)


def test_a_better_scored_false_alarm_halves_precision(split):
    detections = {
        "a.png": found([[10, 10, 30, 30], [50, 50, 70, 70]], [0.6, 0.5]),
        "b.png": found([[1, 1, 9, 9]], [0.9]),
    }
    # Precisions 1/2 and 2/3 at recalls 0.5 and 1; interpolated from the right, 2/3 everywhere.
    assert evaluate(detections, split)[Metric.MAP50] == pytest.approx(2 / 3)


def test_map_averages_over_iou_thresholds(split):
    # 20 x 20 moved by 2.5 to the right: IoU 17.5/22.5 = 0.778, so it counts at 6 of the 10 thresholds.
    scores = evaluate({"a.png": found([[12.5, 10, 32.5, 30], [52.5, 50, 72.5, 70]], [0.9, 0.8])}, split)
    assert scores == {Metric.MAP50: pytest.approx(1), Metric.MAP: pytest.approx(0.6)}


def test_wrong_labels_do_not_count(tmp_path):
    path = write_coco(tmp_path, {"a.png": [(10, 10, 30, 30, 1), (50, 50, 70, 70, 3)]}, categories=(1, 3))
    both = [[10, 10, 30, 30], [50, 50, 70, 70]]
    split = read_split(path, tmp_path)
    assert evaluate({"a.png": found(both, [0.9, 0.8], [1, 3])}, split)[Metric.MAP50] == pytest.approx(1)
    assert evaluate({"a.png": found(both, [0.9, 0.8], [1, 1])}, split)[Metric.MAP50] == pytest.approx(0.5)
    assert evaluate({"a.png": found(both, [0.9, 0.8], [7, 8])}, split)[Metric.MAP50] == 0


def test_only_the_best_hundred_count(split):
    boxes = [[0, 60, 5, 65]] * 100 + [[10, 10, 30, 30]]
    scores = list(np.linspace(1, 0.5, 101))
    assert evaluate({"a.png": found(boxes, scores)}, split)[Metric.MAP50] == 0


def test_nothing_found_scores_zero_and_repeats_agree(split, capfd):
    assert evaluate({}, split) == {Metric.MAP50: 0.0, Metric.MAP: 0.0}
    assert evaluate({"a.png": found([], [])}, split) == {Metric.MAP50: 0.0, Metric.MAP: 0.0}
    detections = {"a.png": found([[10, 10, 30, 30]], [0.9])}
    assert evaluate(detections, split) == evaluate(detections, split)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_outputs_are_an_error(split, bad):
    with pytest.raises(StepError, match="boxes"):
        evaluate({"a.png": found([[10, 10, bad, 30]], [0.9])}, split)
    with pytest.raises(StepError, match="scores"):
        evaluate({"a.png": found([[10, 10, 30, 30]], [bad])}, split)


def test_detections_of_an_unknown_image_are_an_error(split):
    with pytest.raises(StepError, match=r"c\.png"):
        evaluate({"c.png": found([[1, 2, 3, 4]], [0.5])}, split)


def test_annotations_without_boxes_cannot_be_measured_on(tmp_path):
    with pytest.raises(UserError, match="no boxes"):
        evaluate({}, read_split(write_coco(tmp_path, {"a.png": []}), tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no COCO"),
        ('{"images": [], "annotations": [], "categories": []}', "no images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "file_name"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 1}], "categories": []}', "bbox"),
    ],
)
def test_a_file_that_is_no_coco_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_split(path, tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_annotations_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_split(tmp_path / "none.json", tmp_path)


def test_images_of_every_mode_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P", "CMYK", "RGB"):
        path = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (7, 5)).save(path)
        assert load_image(path).shape == (5, 7, 3)


def test_exif_turn_is_applied_only_where_the_annotated_size_asks_for_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (8, 4)).save(tmp_path / "plain.jpg")
    assert load_image(tmp_path / "turned.jpg").shape == (4, 8, 3)
    assert load_image(tmp_path / "turned.jpg", (8, 4)).shape == (4, 8, 3)
    assert load_image(tmp_path / "turned.jpg", (4, 8)).shape == (8, 4, 3)
    assert load_image(tmp_path / "plain.jpg", (4, 8)).shape == (4, 8, 3)


def test_damaged_missing_and_oversized_images_are_refused(tmp_path, monkeypatch):
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no image")
    for name, words in (("half.png", "cannot be decoded"), ("text.png", "cannot be decoded"), ("no.png", "not exist")):
        with pytest.raises(UserError, match=words):
            load_image(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="too large"):
        load_image(tmp_path / "whole.png")


def test_fit_is_the_identity_where_the_size_matches():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    batch, scale = fit(image, 40, 60)
    assert scale == (1, 1)
    assert batch.shape == (1, 3, 40, 60)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch[0].transpose(1, 2, 0), image.astype(np.float32) / 255)


def test_fit_pads_right_and_bottom_with_zeros():
    batch, _ = fit(np.full((20, 40, 3), 255, np.uint8), 64, 64)
    assert (batch[0, :, :32] == 1).all()
    assert (batch[0, :, 32:] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 200),
    columns=st.integers(1, 200),
    height=st.integers(32, 128),
    width=st.integers(32, 128),
    corners=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_boxes_survive_fit_and_unfit(rows, columns, height, width, corners):
    batch, scale = fit(np.zeros((rows, columns, 3), np.uint8), height, width)
    assert batch.shape == (1, 3, height, width)
    assert columns * scale[0] <= width + 1e-3
    assert rows * scale[1] <= height + 1e-3
    boxes = np.array([corners], np.float32) * np.array([columns, rows, columns, rows], np.float32)
    inside = boxes * np.array([*scale, *scale], np.float32)
    np.testing.assert_allclose(unfit(inside, scale), boxes, rtol=1e-4, atol=1e-3)


def test_padding_is_dropped_with_or_without_a_batch_axis():
    boxes, scores = [[[0, 0, 1, 1], [0, 0, 0, 0]]], [[0.5, -1]]
    for raw in ((boxes, scores, [[2, 0]]), (boxes[0], scores[0], [2, 0])):
        kept = drop_padding(*raw)
        assert kept.boxes.tolist() == [[0, 0, 1, 1]]
        assert kept.scores.tolist() == [0.5]
        assert kept.labels.tolist() == [2]


def test_a_batch_is_told_apart_image_by_image():
    boxes = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    first, second = per_image(2, boxes, [[0.9, 0.5, -1], [0.8, -1, -1]], [[1, 2, 0], [2, 0, 0]])
    assert (first.boxes.tolist(), first.labels.tolist()) == (boxes[0, :2].tolist(), [1, 2])
    assert (second.boxes.tolist(), second.labels.tolist()) == (boxes[1, :1].tolist(), [2])
    (one,) = per_image(1, boxes[:1], [[0.9, 0.5, -1]], [[1, 2, 0]])
    np.testing.assert_array_equal(one.boxes, first.boxes)


@pytest.mark.parametrize("count", [2, 3])
def test_outputs_of_another_number_of_images_are_refused(count):
    one_image = np.zeros((count, 4)), np.zeros(count), np.zeros(count)
    with pytest.raises(StepError, match=rf"outputs for {count} images .* expected \[{count}, D, 4\]"):
        per_image(count, *one_image)
    with pytest.raises(StepError, match="expected"):
        per_image(count, np.zeros((4, 5, 4)), np.zeros((4, 5)), np.zeros((4, 5)))


@given(st.integers(1, 9), st.integers(1, 5))
def test_batches_hold_all_images_and_are_filled_up_with_the_last(count, size):
    images = [np.full((1, 3, 2, 2), number, np.float32) for number in range(count)]
    batches = in_batches(images, size)
    assert all(batch.shape == (size, 3, 2, 2) for batch in batches)
    numbers = [int(one[0, 0, 0]) for batch in batches for one in batch]
    assert numbers[:count] == list(range(count))
    assert len(numbers) - count < size
    assert set(numbers[count:]) <= {count - 1}


def test_nan_in_padding_boxes_is_harmless():
    assert len(drop_padding([[np.nan] * 4, [0, 0, 1, 1]], [-1, 0.5], [0, 1]).scores) == 1


def test_outputs_that_do_not_belong_together_are_an_error():
    with pytest.raises(StepError, match="do not belong together"):
        drop_padding([[0, 0, 1, 1]], [0.5, 0.4], [1, 1])


def test_detections_survive_a_file(tmp_path):
    detections = {"a.png": found([[1.25, 2.5, 3, 4]], [0.75], [3]), "b.png": found([], [])}
    write_detections(tmp_path / "deep" / "d.json", detections)
    again = read_detections(tmp_path / "deep" / "d.json")
    assert again.keys() == detections.keys()
    for name, one in detections.items():
        for left, right in zip(one, again[name], strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
