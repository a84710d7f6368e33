"""Faster R-CNN with static shapes: the same arithmetic as torchvision's, without its data-dependent control flow.

torchvision's tail filters with boolean indexing, loops over FPN levels and returns as many boxes as it finds; exported,
that becomes NonZero, If and shapes that no TensorRT builds. Besides the suppression of `canonical_tail` one more
operator stays in the graph for the sake of CPU runtimes, and is replaced for TensorRT (row 14): one ``roi_align`` over
all FPN levels of all images, which are padded into one batch.

Follows Ren et al., "Faster R-CNN", 2015, in torchvision's implementation (0.29).
"""

import math

import torch
import torchvision
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection import FasterRCNN

from components.export.canonical_detector import CandidateCounts, CanonicalDetector
from components.export.canonical_tail import DROPPED, apart, best, clip, decode, keep_unsuppressed, larger_than, pick

STEPS = ((500, 400), (300, 200), (150, 100))
"""(boxes a level, proposals) that are worth a try."""


class CanonicalFasterRCNN(CanonicalDetector):
    """A trained Faster R-CNN with static shapes; see `CanonicalDetector` for input and output.

    Exact, but for one case: with more than two classes, the last suppression sees the best two box-class pairs a
    proposal, on average over the image.
    """

    level_scales: Tensor
    """[L] level pixels per resized pixel, of the levels that RoIs are pooled from."""

    def __init__(self, model: FasterRCNN, height: int, width: int, counts: CandidateCounts | None = None) -> None:
        super().__init__(model, height, width)
        self.counts = counts or CandidateCounts(model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n())
        maps = self.example()
        self.keep_anchors(model.rpn.anchor_generator, list(maps.values()))
        self.pooled_names = [name for name in maps if name in model.roi_heads.box_roi_pool.featmap_names]
        pooled = [maps[name] for name in self.pooled_names]
        # torchvision infers the scale in the same way: the nearest power of two.
        exponents = [round(math.log2(feature.shape[-2] / self.resized[0])) for feature in pooled]
        self.levels = (-exponents[0], -exponents[-1])
        self.register_buffer("level_scales", torch.tensor([2.0**e for e in exponents]), persistent=False)
        self.pooled_size = tuple(1 + max(feature.shape[axis] for feature in pooled) for axis in (-2, -1))

    def fewer(self) -> list[CandidateCounts]:
        """See `CanonicalDetector.fewer`."""
        own = self.counts
        return [CandidateCounts(*step) for step in STEPS if step[0] <= own.per_level and step[1] < own.proposals]

    def find(self, features: dict[str, Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor, Tensor]:
        """See `CanonicalDetector.find`."""
        proposals, valid = self._propose(list(features.values()), counts)
        pooled = self._pool(features, proposals)
        logits, deltas = self.model.roi_heads.box_predictor(self.model.roi_heads.box_head(pooled))
        return self._classify(logits, deltas, proposals, valid)

    def _propose(self, features: list[Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor]:
        """Proposals ``[B, P, 4]`` in resized pixels and whether each is one, ``[B, P]`` bool."""
        rpn = self.model.rpn
        objectness, deltas = rpn.head(features)
        batch = int(features[0].shape[0])
        boxes_of_levels, scores_of_levels = [], []
        for level, (level_logits, level_deltas) in enumerate(zip(objectness, deltas, strict=True)):
            logits = level_logits.permute(0, 2, 3, 1).reshape(batch, -1)
            per_anchor = level_deltas.reshape(batch, -1, 4, *map(int, level_deltas.shape[-2:])).permute(0, 3, 4, 1, 2)
            top, index = best(logits, counts.per_level)
            boxes = decode(
                pick(per_anchor.reshape(batch, -1, 4), index), pick(self.anchors(level), index), rpn.box_coder
            )
            boxes = clip(boxes, self.resized)
            scores = top.sigmoid()
            large = larger_than(boxes, rpn.min_size) & (scores >= rpn.score_thresh)
            scores = torch.where(large, scores, DROPPED)
            boxes_of_levels.append(boxes)
            scores_of_levels.append(keep_unsuppressed(boxes, scores, rpn.nms_thresh, counts.proposals))
        scores, index = best(torch.cat(scores_of_levels, 1), counts.proposals)
        return pick(torch.cat(boxes_of_levels, 1), index), scores > DROPPED

    def _pool(self, features: dict[str, Tensor], proposals: Tensor) -> Tensor:
        """RoI features ``[B * P, C, S, S]``: the levels, padded to one size, are the batch of a single RoIAlign."""
        pool = self.model.roi_heads.box_roi_pool
        levels = [
            # The copied last row and column give samples beyond the last pixel the value that RoIAlign's clamp gives.
            functional.pad(functional.pad(feature, (0, 1, 0, 1), mode="replicate"), self._fill(feature))
            for feature in (features[name] for name in self.pooled_names)
        ]
        batch, count = int(proposals.shape[0]), int(proposals.shape[1])
        proposals = proposals.reshape(-1, 4)
        level = self._level_of(proposals)
        place = level
        if batch > 1:  # the levels lie one after the other, and each holds all images
            place = level * batch + torch.arange(batch).repeat_interleave(count)
        rois = torch.cat([place.to(proposals.dtype).unsqueeze(1), proposals * self.level_scales[level].unsqueeze(1)], 1)
        pooled: Tensor = torchvision.ops.roi_align(
            torch.cat(levels), rois, pool.output_size, spatial_scale=1.0, sampling_ratio=pool.sampling_ratio
        )
        return pooled

    def _fill(self, feature: Tensor) -> tuple[int, int, int, int]:
        height, width = map(int, feature.shape[-2:])
        return 0, self.pooled_size[1] - 1 - width, 0, self.pooled_size[0] - 1 - height

    def _level_of(self, proposals: Tensor) -> Tensor:
        """Index of the FPN level of each proposal (equation 1 of Lin et al., "Feature Pyramid Networks", 2017)."""
        pool = self.model.roi_heads.box_roi_pool
        first, last = self.levels
        sides = ((proposals[:, 2] - proposals[:, 0]) * (proposals[:, 3] - proposals[:, 1])).sqrt()
        level = torch.floor(pool.canonical_level + torch.log2(sides / pool.canonical_scale) + 1e-6)
        return level.clamp(first, last).to(torch.int64) - first

    def _classify(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.model.roi_heads
        batch, count, classes = int(valid.shape[0]), int(valid.shape[1]), int(logits.shape[-1])
        boxes = decode(deltas.reshape(batch, count, classes, 4), proposals.unsqueeze(2), heads.box_coder)
        boxes = clip(boxes, self.resized)[:, :, 1:].reshape(batch, -1, 4)
        scores = logits.softmax(-1)[:, 1:].reshape(batch, -1)
        kept = (scores > heads.score_thresh) & larger_than(boxes, 1e-2)
        kept = kept & valid.unsqueeze(2).expand(-1, -1, classes - 1).reshape(batch, -1)
        scores = torch.where(kept, scores, DROPPED)
        label = torch.arange(1, classes).repeat(count).unsqueeze(0)
        places = boxes
        if classes > 2:
            scores, index = best(scores, 2 * count)
            boxes, label = pick(boxes, index), pick(label, index)
            places = apart(boxes, label, classes, self.resized)
        scores = keep_unsuppressed(places, scores, heads.nms_thresh, heads.detections_per_img)
        scores, index = best(scores, heads.detections_per_img)
        return pick(boxes, index), scores, pick(label, index)
