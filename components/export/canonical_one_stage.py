"""The detectors of the rung `family` with static shapes: their network as it is, and its tail without indexing."""

import torch
from torch import Tensor

from components.core.detectors.one_stage import OneStageDetector
from components.export.canonical_detector import CandidateCounts, CanonicalDetector
from components.export.canonical_tail import DROPPED, apart, best, clip, keep_unsuppressed, pick

STEPS = (500, 300, 150)
"""Boxes before the suppression that are worth a try."""


class CanonicalOneStage(CanonicalDetector):
    """A trained `OneStageDetector` with static shapes, exact with the model's own counts; see `CanonicalDetector`."""

    model: OneStageDetector

    def __init__(self, model: OneStageDetector, height: int, width: int, counts: CandidateCounts | None = None) -> None:
        super().__init__(model, height, width)
        places = int(self.example()["scores"].shape[1])
        most = min(model.candidates, places * model.classes)
        self.counts = counts or CandidateCounts(most, most)

    def fitted(self, height: int, width: int) -> tuple[tuple[int, int], int]:
        """See `CanonicalDetector.fitted`; such a model takes an image in the size it has."""
        return (height, width), self.model.divisor

    def fewer(self) -> list[CandidateCounts]:
        """See `CanonicalDetector.fewer`."""
        least = self.model.detections_per_img
        return [CandidateCounts(step, step) for step in STEPS if least <= step < self.counts.proposals]

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """Boxes ``[B, A, 4]`` and scores ``[B, A, C]`` of images ``[B, 3, H, W]``."""
        boxes, scores = self.model.predict(self.model.padded(image))
        return {"boxes": boxes, "scores": scores}

    def find(self, features: dict[str, Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor, Tensor]:
        """See `CanonicalDetector.find`."""
        model = self.model
        scores, index = best(features["scores"].flatten(1), counts.proposals)
        place = torch.div(index, model.classes, rounding_mode="trunc")
        labels = index - place * model.classes
        boxes = clip(pick(features["boxes"], place), self.image_size)
        scores = torch.where(scores > model.score_thresh, scores, DROPPED)
        scores = keep_unsuppressed(
            apart(boxes, labels, model.classes, self.image_size), scores, model.nms_thresh, model.detections_per_img
        )
        scores, index = best(scores, model.detections_per_img)
        return pick(boxes, index), scores, pick(labels, index) + model.first_label
