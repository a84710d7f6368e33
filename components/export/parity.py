"""Compares an exported model with the one it came from, detection by detection, on real images."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.tasks.detection import Detections, per_image

SCORE_FLOOR = 0.05
"""Detections below this score do not count."""
MIN_IOU = 0.99
MAX_SCORE_DIFFERENCE = 1e-3
REQUIRED_SHARE = 0.99
"""An export is refused when a smaller share of the detections agrees."""


@dataclass(frozen=True)
class Parity:
    """How far two models agree."""

    images: int
    detections: int
    matched: int
    """Detections with a partner: same label, IoU > 0.99, score within 1e-3."""
    max_score_difference: float
    """Over the pairs of the best overlap, matched or not."""
    min_iou: float
    """The same pairs: the least overlap, 0 where a detection has no counterpart."""

    @property
    def agrees(self) -> bool:
        """Whether the export may be used."""
        return self.matched >= REQUIRED_SHARE * self.detections

    def summary(self) -> dict[str, Any]:
        """The numbers, for a card."""
        return asdict(self) | {"agrees": self.agrees}


def compare(expected: list[Detections], found: list[Detections]) -> Parity:
    """Compares image by image; every expected detection with a score over 0.05 must have a partner."""
    total = matched = 0
    worst, least = 0.0, 1.0
    for reference, other in zip(expected, found, strict=True):
        wanted = reference.scores > SCORE_FLOOR
        total += int(wanted.sum())
        if not wanted.any():
            continue
        if not len(other.scores):
            least = 0.0
            continue
        overlap = box_iou(reference.boxes[wanted], other.boxes)
        overlap[reference.labels[wanted][:, None] != other.labels[None, :]] = 0
        partner = overlap.argmax(1)
        difference = np.abs(reference.scores[wanted] - other.scores[partner])
        worst, least = max(worst, float(difference.max())), min(least, float(overlap.max(1).min()))
        matched += int(((overlap.max(1) > MIN_IOU) & (difference < MAX_SCORE_DIFFERENCE)).sum())
    return Parity(len(expected), total, matched, worst, least)


def box_iou(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Intersection over union ``[N, M]`` of boxes ``[N, 4]`` and ``[M, 4]`` (x1, y1, x2, y2)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (bottom_right - top_left).clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


def run_onnx(path: Path, batches: list[npt.NDArray[np.float32]]) -> list[Detections]:
    """Runs a detector in ONNX Runtime on the CPU, image by image; batches are ``[N, 3, H, W]`` in 0..1."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = [per_image(len(batch), *session.run(None, {name: batch})[:3]) for batch in batches]
    return [detections for group in found for detections in group]
