"""SSD and SSDLite with static shapes: the same arithmetic as torchvision's, without its loop over the classes.

The classes are rows of a batch: each chooses its own candidates and has a suppression of its own.

Follows Liu et al., "SSD: Single Shot MultiBox Detector", 2016, in torchvision's implementation (0.29).
"""

import torch
from torch import Tensor
from torchvision.models.detection.ssd import SSD

from components.export.canonical_detector import CandidateCounts, CanonicalDetector
from components.export.canonical_tail import DROPPED, best, clip, decode, keep_unsuppressed, pick

STEPS = (200, 100, 50)
"""Boxes of a class that are worth a try."""


class CanonicalSSD(CanonicalDetector):
    """A trained SSD or SSDLite with static shapes, exact with the model's own counts; see `CanonicalDetector`.

    Ties at a class's last place may fall out differently: torchvision leaves their order open.
    """

    def __init__(self, model: SSD, height: int, width: int, counts: CandidateCounts | None = None) -> None:
        super().__init__(model, height, width)
        maps = list(self.example().values())
        self.level_sizes = self.keep_anchors(model.anchor_generator, maps)
        with torch.no_grad():
            logits = model.head(maps)["cls_logits"]
        self.classes = int(logits.shape[-1]) - 1
        self.counts = counts or self._counts(min(model.topk_candidates, logits.shape[1]))

    def fewer(self) -> list[CandidateCounts]:
        """See `CanonicalDetector.fewer`."""
        return [self._counts(step) for step in STEPS if step < self.counts.per_level]

    def find(self, features: dict[str, Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor, Tensor]:
        """See `CanonicalDetector.find`."""
        model = self.model
        outputs = model.head(list(features.values()))
        batch, classes = int(outputs["cls_logits"].shape[0]), self.classes
        anchors = torch.cat([self.anchors(level) for level in range(len(self.level_sizes))], 1)
        boxes = clip(decode(outputs["bbox_regression"], anchors, model.box_coder), self.resized)
        scores = outputs["cls_logits"].softmax(-1)[:, :, 1:].transpose(1, 2)
        scores, index = best(scores, counts.per_level)
        boxes = pick(boxes, index.reshape(batch, -1))
        scores = torch.where(scores > model.score_thresh, scores, DROPPED).reshape(batch * classes, -1)
        # Who is not among the best of his class is not among the best of all.
        scores = keep_unsuppressed(
            boxes.reshape(batch * classes, -1, 4), scores, model.nms_thresh, model.detections_per_img
        )
        label = torch.arange(1, classes + 1).repeat_interleave(int(scores.shape[-1])).unsqueeze(0)
        scores, place = best(scores.reshape(batch, -1), model.detections_per_img)
        return pick(boxes, place), scores, pick(label, place)

    def _counts(self, per_class: int) -> CandidateCounts:
        return CandidateCounts(per_class, self.classes * per_class)
