"""One set of detections out of those of several teachers: weighted boxes fusion (Solovyev, Wang and Gabruseva 2021)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.core.tasks.detection import Detections


def fuse(found: Sequence[Detections], iou: float, min_score: float = 0.0) -> Detections:
    """Boxes that several teachers agree on become one: the mean of theirs, weighted by their scores.

    A fused box has the mean of its scores, times the share of the teachers that found it: what one of three saw counts
    a third. Boxes of different labels are never fused.

    Args:
        found: what each teacher found in the same image; one teacher's detections come back as they are.
        iou: overlap from which two boxes are the same object.
        min_score: detections below it are left out before fusing.

    Returns:
        Fused detections, best first.
    """
    kept = [_above(one, min_score) for one in found]
    if len(kept) == 1:
        return kept[0]
    boxes = np.concatenate([one.boxes for one in kept]).astype(np.float64)
    scores = np.concatenate([one.scores for one in kept]).astype(np.float64)
    labels = np.concatenate([one.labels for one in kept])
    order = np.argsort(-scores, kind="stable")
    clusters: list[_Cluster] = []
    for index in order.tolist():
        label = int(labels[index])
        near = [one for one in clusters if one.label == label]
        overlaps = _overlaps(boxes[index], np.array([one.box for one in near]).reshape(-1, 4))
        best = int(overlaps.argmax()) if near else -1
        if best >= 0 and overlaps[best] > iou:
            near[best].add(boxes[index], float(scores[index]))
        else:
            clusters.append(_Cluster(label, boxes[index], float(scores[index])))
    fused = [(one.score(len(found)), one) for one in clusters]
    fused.sort(key=lambda pair: -pair[0])
    return Detections(
        np.array([one.box for _, one in fused], np.float32).reshape(-1, 4),
        np.array([score for score, _ in fused], np.float32),
        np.array([one.label for _, one in fused], np.int64),
    )


class _Cluster:
    """Boxes that are taken for one object."""

    def __init__(self, label: int, box: npt.NDArray[np.float64], score: float) -> None:
        self.label = label
        self.box = box
        self._boxes, self._scores = [box], [score]

    def add(self, box: npt.NDArray[np.float64], score: float) -> None:
        self._boxes.append(box)
        self._scores.append(score)
        # A teacher may be sure that there is nothing: scores of 0 weigh all the same.
        weights = np.array(self._scores) if sum(self._scores) else np.ones(len(self._scores))
        self.box = np.average(np.array(self._boxes), axis=0, weights=weights)

    def score(self, teachers: int) -> float:
        return float(np.mean(self._scores)) * min(len(self._scores), teachers) / teachers


def _above(found: Detections, min_score: float) -> Detections:
    keep = found.scores >= min_score
    return Detections(found.boxes[keep], found.scores[keep], found.labels[keep])


def _overlaps(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of a box with others [N, 4]; [N]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.clip(sides, 0, None), axis=1)
    areas = np.prod(np.clip(others[:, 2:] - others[:, :2], 0, None), axis=1)
    union = np.prod(np.clip(box[2:] - box[:2], 0, None)) + areas - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
