"""What RetinaNet and FCOS share: the best pairs of an anchor and a class on each level, and one suppression for all."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from components.export.canonical_detector import CandidateCounts, CanonicalDetector
from components.export.canonical_tail import apart, best, best_of_levels, clip, keep_unsuppressed, pick

STEPS = ((500, 1000), (300, 500), (150, 300))
"""(boxes a level, boxes before the suppression) that are worth a try."""


class CanonicalDense(CanonicalDetector):
    """A dense detector with static shapes; see `CanonicalDetector` for input and output.

    Exact while all candidates of the levels enter the suppression, as they do with the model's own counts. Ties at a
    level's last place may fall out differently: torchvision leaves their order open.
    """

    def __init__(self, model: Any, height: int, width: int, counts: CandidateCounts | None = None) -> None:
        super().__init__(model, height, width)
        maps = list(self.example().values())
        self.level_sizes = self.keep_anchors(model.anchor_generator, maps)
        with torch.no_grad():
            self.classes = int(model.head(maps)["cls_logits"].shape[-1])
        pairs = sum(min(size * self.classes, model.topk_candidates) for size in self.level_sizes)
        self.counts = counts or CandidateCounts(model.topk_candidates, pairs)

    @abstractmethod
    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """Scores ``[B, A, C]`` in 0..1 of the head's outputs."""

    @abstractmethod
    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Boxes ``[B, N, 4]`` of the head's deltas and anchors, both ``[B, N, 4]``."""

    def fewer(self) -> list[CandidateCounts]:
        """See `CanonicalDetector.fewer`."""
        own, least = self.counts, self.model.detections_per_img
        steps = [step for step in STEPS if step[0] <= own.per_level and least <= step[1] < own.proposals]
        return [CandidateCounts(*step) for step in steps]

    def find(self, features: dict[str, Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor, Tensor]:
        """See `CanonicalDetector.find`."""
        model = self.model
        outputs = model.head(list(features.values()))
        scores, deltas, anchors, labels = best_of_levels(
            torch.split(self.scores(outputs), self.level_sizes, 1),
            torch.split(outputs["bbox_regression"], self.level_sizes, 1),
            [self.anchors(level) for level in range(len(self.level_sizes))],
            counts.per_level,
            model.score_thresh,
        )
        boxes = clip(self.decode(deltas, anchors), self.resized)
        if counts.proposals < scores.shape[1]:
            scores, index = best(scores, counts.proposals)
            boxes, labels = pick(boxes, index), pick(labels, index)
        places = apart(boxes, labels, self.classes, self.resized)
        scores = keep_unsuppressed(places, scores, model.nms_thresh, model.detections_per_img)
        scores, index = best(scores, model.detections_per_img)
        return pick(boxes, index), scores, pick(labels, index)
