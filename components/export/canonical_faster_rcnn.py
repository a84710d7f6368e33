"""Faster R-CNN with static shapes: the same arithmetic as torchvision's, without its data-dependent control flow.

torchvision's tail filters with boolean indexing, loops over FPN levels and returns as many boxes as it finds; exported,
that becomes NonZero, If and shapes that no TensorRT builds. Here every tensor has a fixed size: what the original drops
is kept with a score of -1. Two operators stay in the graph on purpose, in one idiom each, because a CPU runtime has
fast kernels for them while the surgery component knows how to replace each by plain operators for TensorRT (rows 12
and 14):

* ``nms`` whose indices are only scattered into a keep-mask,
* one ``roi_align`` over all FPN levels, which are padded into one batch.

Follows Ren et al., "Faster R-CNN", 2015, in torchvision's implementation (0.29).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

DROPPED = -1.0
"""Score of a padded or suppressed box."""


@dataclass(frozen=True)
class CandidateCounts:
    """How many boxes the tail carries; fewer is faster, and costs accuracy at some point."""

    per_level: int
    """Boxes of each FPN level that enter the first NMS (torchvision: ``rpn_pre_nms_top_n_test``)."""
    proposals: int
    """Boxes that enter the box head (torchvision: ``rpn_post_nms_top_n_test``)."""

    @staticmethod
    def of(model: FasterRCNN) -> "CandidateCounts":
        """The counts that the user's model runs with."""
        return CandidateCounts(model.rpn.pre_nms_top_n(), model.rpn.post_nms_top_n())


class CanonicalFasterRCNN(nn.Module):
    """Wraps a trained torchvision Faster R-CNN; shares its weights.

    Input ``[1, 3, H, W]`` float in 0..1. Output: boxes ``[D, 4]`` (x1, y1, x2, y2 in input pixels), scores ``[D]``
    (-1 where there is no detection) and labels ``[D]``, with D the model's ``detections_per_img``.
    """

    level_scales: Tensor
    """[L] level pixels per resized pixel, of the levels that RoIs are pooled from."""

    def __init__(self, model: FasterRCNN, height: int, width: int, counts: CandidateCounts | None = None) -> None:
        super().__init__()
        self.model = model.eval()
        self.counts = counts or CandidateCounts.of(model)
        self.image_size = (height, width)
        self.resized = resized_size(model.transform, height, width)
        divisor = model.transform.size_divisible
        self.padding = tuple(-side % divisor for side in self.resized)
        with torch.no_grad():
            features = model.backbone(self._transform(torch.zeros(1, 3, height, width)))
            anchors = _anchors(model, list(features.values()), self.resized, self.padding)
        for level, level_anchors in enumerate(anchors):
            self.register_buffer(f"anchors_{level}", level_anchors, persistent=False)
        self.pooled_names = [name for name in features if name in model.roi_heads.box_roi_pool.featmap_names]
        pooled = [features[name] for name in self.pooled_names]
        # torchvision infers the scale in the same way: the nearest power of two.
        exponents = [round(math.log2(feature.shape[-2] / self.resized[0])) for feature in pooled]
        self.levels = (-exponents[0], -exponents[-1])
        self.register_buffer("level_scales", torch.tensor([2.0**e for e in exponents]), persistent=False)
        self.pooled_size = tuple(1 + max(feature.shape[axis] for feature in pooled) for axis in (-2, -1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detects on one image; see the class for shapes."""
        return self.detect(self.features(image), self.counts)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """FPN levels ``[1, C, h, w]`` by name, of an image ``[1, 3, H, W]``."""
        return dict(self.model.backbone(self._transform(image)))

    def detect(self, features: dict[str, Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor, Tensor]:
        """Everything behind the FPN, with ``counts`` boxes; output as of the class."""
        proposals, valid = self._propose(list(features.values()), counts)
        pooled = self._pool(features, proposals)
        logits, deltas = self.model.roi_heads.box_predictor(self.model.roi_heads.box_head(pooled))
        return self._classify(logits, deltas, proposals, valid)

    def _transform(self, image: Tensor) -> Tensor:
        transform = self.model.transform
        mean = torch.as_tensor(transform.image_mean).view(1, 3, 1, 1)
        std = torch.as_tensor(transform.image_std).view(1, 3, 1, 1)
        image = (image - mean) / std
        if self.resized != self.image_size:
            image = functional.interpolate(image, size=self.resized, mode="bilinear", align_corners=False)
        if any(self.padding):
            image = functional.pad(image, (0, self.padding[1], 0, self.padding[0]))
        return image

    def _propose(self, features: list[Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor]:
        """Proposals ``[P, 4]`` in resized pixels and whether each is one, ``[P]`` bool."""
        rpn = self.model.rpn
        objectness, deltas = rpn.head(features)
        boxes_of_levels, scores_of_levels = [], []
        for level, (level_logits, level_deltas) in enumerate(zip(objectness, deltas, strict=True)):
            anchors = getattr(self, f"anchors_{level}")
            logits = level_logits.permute(0, 2, 3, 1).reshape(-1)
            per_anchor = level_deltas.reshape(-1, 4, *level_deltas.shape[-2:]).permute(2, 3, 0, 1).reshape(-1, 4)
            best, index = logits.topk(min(counts.per_level, anchors.shape[0]))
            boxes = decode(per_anchor[index], anchors[index], rpn.box_coder)
            boxes = clip(boxes, self.resized)
            scores = best.sigmoid()
            large = _larger_than(boxes, rpn.min_size) & (scores >= rpn.score_thresh)
            scores = torch.where(large, scores, DROPPED)
            boxes_of_levels.append(boxes)
            scores_of_levels.append(keep_unsuppressed(boxes, scores, rpn.nms_thresh, counts.proposals))
        boxes, scores = torch.cat(boxes_of_levels), torch.cat(scores_of_levels)
        scores, index = scores.topk(min(counts.proposals, scores.shape[0]))
        return boxes[index], scores > DROPPED

    def _pool(self, features: dict[str, Tensor], proposals: Tensor) -> Tensor:
        """RoI features ``[P, C, S, S]``: the levels, padded to one size, are the batch of a single RoIAlign."""
        pool = self.model.roi_heads.box_roi_pool
        levels = [
            # The copied last row and column give samples beyond the last pixel the value that RoIAlign's clamp gives.
            functional.pad(functional.pad(feature, (0, 1, 0, 1), mode="replicate"), self._fill(feature))
            for feature in (features[name] for name in self.pooled_names)
        ]
        level = self._level_of(proposals)
        rois = torch.cat([level.to(proposals.dtype).unsqueeze(1), proposals * self.level_scales[level].unsqueeze(1)], 1)
        pooled: Tensor = torchvision.ops.roi_align(
            torch.cat(levels), rois, pool.output_size, spatial_scale=1.0, sampling_ratio=pool.sampling_ratio
        )
        return pooled

    def _fill(self, feature: Tensor) -> tuple[int, int, int, int]:
        return 0, self.pooled_size[1] - 1 - feature.shape[-1], 0, self.pooled_size[0] - 1 - feature.shape[-2]

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
        classes = logits.shape[-1]
        boxes = decode(deltas.reshape(-1, classes, 4), proposals.unsqueeze(1), heads.box_coder)
        boxes = clip(boxes, self.resized)[:, 1:].reshape(-1, 4)
        scores = logits.softmax(-1)[:, 1:].reshape(-1)
        kept = (scores > heads.score_thresh) & _larger_than(boxes, 1e-2)
        kept = kept & valid.unsqueeze(1).expand(-1, classes - 1).reshape(-1)
        scores = torch.where(kept, scores, DROPPED)
        label = torch.arange(1, classes).repeat(proposals.shape[0])
        if classes > 2:
            # Exact while at most two classes a proposal pass the score threshold, on average over the image.
            scores, index = scores.topk(min(2 * proposals.shape[0], scores.shape[0]))
            boxes, label = boxes[index], label[index]
        # Boxes of different classes must not suppress one another: move each class to a place of its own.
        apart = label.to(boxes.dtype).unsqueeze(1) * (max(self.resized) + 1.0) if classes > 2 else 0.0
        scores = keep_unsuppressed(boxes + apart, scores, heads.nms_thresh, heads.detections_per_img)
        scores, index = scores.topk(min(heads.detections_per_img, scores.shape[0]))
        height, width = (size / resized for size, resized in zip(self.image_size, self.resized, strict=True))
        return boxes[index] * torch.tensor([width, height, width, height]), scores, label[index]


def resized_size(transform: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels that torchvision's GeneralizedRCNNTransform resizes an image to, before it pads."""
    images, _ = transform([torch.zeros(3, height, width)])
    resized: tuple[int, int] = images.image_sizes[0]
    return resized


class _KeepMask(torch.autograd.Function):
    """Non-maximum suppression as a mask; exported as the idiom that row 12 of the surgery recognises."""

    @staticmethod
    def forward(_ctx: Any, boxes: Tensor, scores: Tensor, threshold: float, limit: int) -> Tensor:
        index = torchvision.ops.nms(boxes, scores, threshold)
        index = index[scores[index] > DROPPED][:limit]
        return torch.zeros_like(scores).scatter(0, index, 1.0)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, threshold: float, limit: int) -> Any:
        def constant(value: Any, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        first = constant([0], torch.int64)
        selected = g.op(
            "NonMaxSuppression",
            g.op("Unsqueeze", boxes, first),
            g.op("Unsqueeze", scores, constant([0, 1], torch.int64)),
            constant([limit], torch.int64),
            constant([threshold], torch.float32),
            constant([DROPPED / 2], torch.float32),
        )
        index = g.op(
            "Squeeze", g.op("Gather", selected, constant([2], torch.int64), axis_i=1), constant([1], torch.int64)
        )
        ones = g.op("Expand", constant([1.0], torch.float32), g.op("Shape", index))
        zeros = g.op("Mul", scores, constant(0.0, torch.float32))
        return g.op("ScatterElements", zeros, index, ones, axis_i=0)


def keep_unsuppressed(boxes: Tensor, scores: Tensor, threshold: float, limit: int) -> Tensor:
    """Scores ``[N]`` with all set to -1 but the best ``limit`` that non-maximum suppression keeps.

    A box that was dropped before has the lowest score, so it can suppress no other.
    """
    keep = _KeepMask.apply(boxes, scores, threshold, limit)  # type: ignore[no-untyped-call]
    return torch.where(keep > 0, scores, DROPPED)


def decode(deltas: Tensor, anchors: Tensor, coder: Any) -> Tensor:
    """Boxes ``[..., 4]`` as x1 y1 x2 y2 from regression ``deltas`` and ``anchors`` (torchvision's BoxCoder)."""
    weights = torch.tensor(coder.weights, dtype=deltas.dtype)
    shift, growth = (deltas / weights).split(2, -1)  # type: ignore[no-untyped-call]
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * size + shift * size
    half = 0.5 * size * growth.clamp(max=coder.bbox_xform_clip).exp()
    return torch.cat([centre - half, centre + half], -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes ``[..., 4]`` moved inside an image of ``size`` (height, width) pixels."""
    limit = torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype)
    return torch.minimum(boxes.clamp(min=0.0), limit)


def _larger_than(boxes: Tensor, side: float) -> Tensor:
    return ((boxes[..., 2] - boxes[..., 0]) >= side) & ((boxes[..., 3] - boxes[..., 1]) >= side)


def _anchors(
    model: FasterRCNN, features: list[Tensor], resized: tuple[int, int], padding: tuple[int, ...]
) -> list[Tensor]:
    padded = torch.zeros(1, 3, resized[0] + padding[0], resized[1] + padding[1])
    anchors = model.rpn.anchor_generator(ImageList(padded, [resized]), features)[0]
    per_location = model.rpn.anchor_generator.num_anchors_per_location()
    counts = [n * f.shape[-2] * f.shape[-1] for n, f in zip(per_location, features, strict=True)]
    return list(anchors.split(counts))
