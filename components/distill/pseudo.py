"""Detections of teachers as targets: pseudo-labels that count as much as the teachers are sure of them."""

import random

import numpy as np
import numpy.typing as npt

from components.core.tasks.detection import Detections

Truth = list[tuple[list[float], int]]
"""Corners x1 y1 x2 y2 and label of every box of an image."""
_SMALLEST = 1.0
"""Pixels; no detector can be trained on a narrower box."""


def drawn(found: Detections, min_score: float, chooser: random.Random) -> Truth:
    """The detections that stand for the truth this time: each with its score as the probability.

    Detectors compute their losses themselves and take boxes without weights. Drawn anew each epoch, the expected loss
    of a box is the cross entropy with the teacher's score as a soft label, and its box counts as much as that score.

    Args:
        found: what the teachers found, in pixels of the network's input.
        min_score: below it a detection is never taken.
        chooser: what is drawn from; one number for each detection above `min_score`.
    """
    able = (found.scores >= min_score) & (_sides(found.boxes) >= _SMALLEST)
    return [
        (box, label)
        for box, score, label in zip(
            found.boxes[able].tolist(), found.scores[able].tolist(), found.labels[able].tolist(), strict=True
        )
        if chooser.random() < score
    ]


def _sides(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The shorter side of each box."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf))
