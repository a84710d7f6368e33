"""The paired bootstrap: its centre is the library's own accuracy, its interval tells a difference from noise."""

import numpy as np
import pytest

from components.core.contracts.job import METRICS, Metric, Task
from components.core.errors import UserError
from components.core.tasks.detection import Detections, DetectionSplit, evaluate, read_split
from components.core.tasks.detection_bootstrap import difference
from fixtures.scenes import write_scene


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> DetectionSplit:
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder / "test", 20, seed=3)
    return read_split(folder / "test" / "annotations.json", folder / "test" / "images")


def detector(split: DetectionSplit, blur: float, misses: float, seed: int) -> dict[str, Detections]:
    """Finds boxes that are off by so many pixels, and overlooks that share of them."""
    draw = np.random.default_rng(seed)
    found = {}
    for image in split.images:
        truth = [record for record in split.document["annotations"] if record["image_id"] == image.id]
        kept = [record for record in truth if draw.random() >= misses]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (record["bbox"] for record in kept)], np.float32)
        boxes = boxes.reshape(-1, 4) + draw.normal(0, blur, (len(kept), 4)).astype(np.float32)
        labels = np.array([record["category_id"] for record in kept], np.int64)
        found[image.file_name] = Detections(boxes, draw.random(len(kept)).astype(np.float32), labels)
    return found


@pytest.mark.parametrize("metric", METRICS[Task.DETECTION])
def test_without_resampling_it_is_the_difference_of_the_accuracies(split: DetectionSplit, metric: Metric) -> None:
    good, bad = detector(split, 1, 0.1, 0), detector(split, 3, 0.4, 1)
    expected = evaluate(good, split)[metric] - evaluate(bad, split)[metric]
    found = difference(good, bad, split, metric, 200, 0)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.ci_low <= found.value <= found.ci_high
    opposite = difference(bad, good, split, metric, 200, 0)
    assert (opposite.value, opposite.ci_low, opposite.ci_high) == pytest.approx(
        (-found.value, -found.ci_high, -found.ci_low)
    )


def test_a_real_difference_is_beyond_noise_and_an_idle_one_is_not(split: DetectionSplit) -> None:
    good, bad = detector(split, 1, 0.1, 0), detector(split, 3, 0.5, 1)
    assert difference(good, bad, split, Metric.MAP50, 300, 0).ci_low > 0
    same = difference(good, good, split, Metric.MAP50, 300, 0)
    assert (same.value, same.ci_low, same.ci_high) == (0, 0, 0)  # the same images for both: paired
    twin = detector(split, 1, 0.1, 7)
    idle = difference(good, twin, split, Metric.MAP50, 300, 0)
    assert idle.ci_low < 0 < idle.ci_high
    assert difference(good, twin, split, Metric.MAP50, 300, 0) == idle


def test_one_that_finds_nothing(split: DetectionSplit) -> None:
    good = detector(split, 1, 0, 0)
    found = difference(good, {}, split, Metric.MAP50, 200, 0)
    assert found.value == pytest.approx(evaluate(good, split)[Metric.MAP50])
    empty = DetectionSplit(split.annotations, split.images, split.categories, split.document | {"annotations": []})
    with pytest.raises(UserError, match="have no boxes"):
        difference(good, good, empty, Metric.MAP50, 200, 0)
