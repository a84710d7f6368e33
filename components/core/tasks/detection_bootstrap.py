"""How sure a difference in average precision is: a paired bootstrap over the test images."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from components.core.contracts.champion import Difference
from components.core.contracts.job import Metric
from components.core.errors import UserError
from components.core.tasks.detection import MAX_DETECTIONS, Detections, DetectionSplit, as_coco_results, mean_precision


class Matched(NamedTuple):
    """What was matched on each image, as faster-coco-eval keeps it between its two halves."""

    params: Any
    images: list[Any]
    """Category by category, an entry an image."""
    total: int
    """Images."""


def difference(
    challenger: dict[str, Detections],
    champion: dict[str, Detections],
    split: DetectionSplit,
    metric: Metric,
    resamples: int,
    seed: int,
) -> Difference:
    """The challenger's average precision less the champion's, with its 95% interval.

    Images are drawn with replacement, the same ones for both models: how hard an image is then hits both alike, and
    the interval is of their difference (Koehn, "Statistical significance tests for machine translation evaluation",
    2004, does so with sentences). Matching detections with boxes is done once; the average precision of each sample is
    the library's own.

    Args:
        challenger: file name -> what was found.
        champion: the same of the other model.
        split: the truth.
        metric: of the goal.
        resamples: how many samples are drawn.
        seed: makes the interval reproducible.

    Raises:
        UserError: the split has no boxes.
        StepError: a box or score is no number.
    """
    sides = [matched(found, split, metric) for found in (challenger, champion)]
    count = len(split.images)
    value = _precision(sides[0], np.arange(count)) - _precision(sides[1], np.arange(count))
    draw = np.random.default_rng(seed)
    differences = np.empty(resamples)
    for number in range(resamples):
        drawn = draw.integers(0, count, count)
        differences[number] = _precision(sides[0], drawn) - _precision(sides[1], drawn)
    low, high = np.percentile(differences, [2.5, 97.5]).tolist()
    return Difference(value=value, ci_low=min(low, value), ci_high=max(high, value))


def matched(found: dict[str, Detections], split: DetectionSplit, metric: Metric) -> Matched | None:
    """Detections matched with boxes, image by image; None where nothing was found, whose precision is 0."""
    from faster_coco_eval import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    if not any(not record["iscrowd"] for record in split.document["annotations"]):
        raise UserError(f"annotations {split.annotations} have no boxes, so accuracy cannot be measured on them")
    results = as_coco_results(found, split)
    if not results:
        return None
    truth = COCO(split.document)
    scoring = COCOeval_faster(
        truth, truth.loadRes(results), iouType="bbox", print_function=lambda *_: None, separate_eval=True
    )
    # Everything that the metric does not need is left out: it would be computed for every sample.
    scoring.params.maxDets = [MAX_DETECTIONS]
    scoring.params.areaRng, scoring.params.areaRngLbl = scoring.params.areaRng[:1], scoring.params.areaRngLbl[:1]
    if metric is Metric.MAP50:
        scoring.params.iouThrs = scoring.params.iouThrs[:1]
    scoring.evaluate()
    return Matched(scoring._paramsEval, list(scoring._evalImgs_cpp), len(split.images))


def _precision(side: Matched | None, drawn: npt.NDArray[np.int64]) -> float:
    """Average precision of the images at these places, each as often as it was drawn."""
    if side is None:
        return 0.0
    from faster_coco_eval import faster_eval_api_cpp

    sample = [image for start in range(0, len(side.images), side.total) for image in _taken(side, start, drawn)]
    found = faster_eval_api_cpp.COCOevalAccumulate(side.params, sample)
    return mean_precision(np.asarray(found["precision"])[..., 0, 0])


def _taken(side: Matched, start: int, drawn: npt.NDArray[np.int64]) -> list[Any]:
    return [side.images[start + place] for place in drawn]
