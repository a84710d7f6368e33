"""What the static re-expressions of torchvision's detectors share: the arithmetic of a detector's tail.

Every tensor has a batch axis and a fixed size; what torchvision drops is kept with a score of -1. One operator of the
tail stays as it is, in one idiom, because a CPU runtime has a fast kernel for it while the surgery component knows how
to replace it by plain operators for TensorRT (row 12): ``nms`` whose indices are only scattered into a keep-mask.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor

DROPPED = -1.0
"""Score of a padded or suppressed box."""


class _KeepMask(torch.autograd.Function):
    """Non-maximum suppression as a mask; exported as the idiom that row 12 of the surgery recognises."""

    @staticmethod
    def forward(
        _ctx: Any, boxes: Tensor, scores: Tensor, threshold: float, limit: int, _shape: tuple[int, int]
    ) -> Tensor:
        keep = torch.zeros_like(scores)
        for one_boxes, one_scores, one_keep in zip(boxes, scores, keep, strict=True):
            index = torchvision.ops.nms(one_boxes, one_scores, threshold)
            one_keep[index[one_scores[index] > DROPPED][:limit]] = 1.0
        return keep

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, threshold: float, limit: int, shape: tuple[int, int]) -> Any:
        def constant(value: Any, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        def column(index: int) -> Any:
            chosen = g.op("Gather", selected, constant([index], torch.int64), axis_i=1)
            return g.op("Squeeze", chosen, constant([1], torch.int64))

        selected = g.op(
            "NonMaxSuppression",
            boxes,
            g.op("Unsqueeze", scores, constant([1], torch.int64)),
            constant([limit], torch.int64),
            constant([threshold], torch.float32),
            constant([DROPPED / 2], torch.float32),
        )
        zeros = g.op("Mul", scores, constant(0.0, torch.float32))
        place = column(2)
        if shape[0] > 1:
            place = g.op("Add", g.op("Mul", column(0), constant(shape[1], torch.int64)), place)
        ones = g.op("Expand", constant([1.0], torch.float32), g.op("Shape", place))
        flat = g.op("Reshape", zeros, constant([-1], torch.int64))
        kept = g.op("ScatterElements", flat, place, ones, axis_i=0)
        return g.op("Reshape", kept, constant(shape, torch.int64))


def keep_unsuppressed(boxes: Tensor, scores: Tensor, threshold: float, limit: int) -> Tensor:
    """Scores ``[B, N]`` with all set to -1 but the best ``limit`` of each row that non-maximum suppression keeps.

    A box that was dropped before has the lowest score, so it can suppress no other.

    Args:
        boxes: ``[B, N, 4]``; rows of the batch do not see one another.
        scores: ``[B, N]``, -1 where a box was dropped.
        threshold: intersection over union beyond which the worse box goes.
        limit: boxes that a row keeps at most.
    """
    shape = (int(scores.shape[0]), int(scores.shape[1]))
    keep = _KeepMask.apply(boxes, scores, threshold, limit, shape)  # type: ignore[no-untyped-call]
    return torch.where(keep > 0, scores, DROPPED)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best of scores ``[B, N]``, or all if there are fewer: values and places, ``[B, K]``."""
    values, index = scores.topk(min(count, int(scores.shape[-1])))
    return values, index


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``[B, K, ...]`` of ``values`` ``[B, N, ...]`` at ``index`` ``[B, K]``; one Gather of a flat table.

    Values ``[1, N, ...]``, such as anchors, serve every row of the batch.
    """
    batch, count = int(values.shape[0]), int(values.shape[1])
    if batch > 1:
        index = index + (torch.arange(batch) * count).unsqueeze(1)
    return values.reshape(batch * count, *map(int, values.shape[2:]))[index]


def decode(deltas: Tensor, anchors: Tensor, coder: Any) -> Tensor:
    """Boxes ``[..., 4]`` as x1 y1 x2 y2 from regression ``deltas`` and ``anchors`` (torchvision's BoxCoder)."""
    weights = torch.tensor(coder.weights, dtype=deltas.dtype)
    shift, growth = (deltas / weights).split(2, -1)  # type: ignore[no-untyped-call]
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * size + shift * size
    half = 0.5 * size * growth.clamp(max=coder.bbox_xform_clip).exp()
    return torch.cat([centre - half, centre + half], -1)


def decode_distances(distances: Tensor, anchors: Tensor, coder: Any) -> Tensor:
    """Boxes ``[..., 4]`` from the distances of an anchor's centre to the four sides (torchvision's BoxLinearCoder)."""
    before, after = distances.split(2, -1)  # type: ignore[no-untyped-call]
    centre = 0.5 * (anchors[..., :2] + anchors[..., 2:])
    if coder.normalize_by_size:
        size = anchors[..., 2:] - anchors[..., :2]
        before, after = before * size, after * size
    return torch.cat([centre - before, centre + after], -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes ``[..., 4]`` moved inside an image of ``size`` (height, width) pixels."""
    limit = torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype)
    return torch.minimum(boxes.clamp(min=0.0), limit)


def larger_than(boxes: Tensor, side: float) -> Tensor:
    """Whether both sides of boxes ``[..., 4]`` are at least ``side`` pixels long, ``[...]`` bool."""
    return ((boxes[..., 2] - boxes[..., 0]) >= side) & ((boxes[..., 3] - boxes[..., 1]) >= side)


def apart(boxes: Tensor, labels: Tensor, classes: int, size: tuple[int, int]) -> Tensor:
    """Boxes moved so that those of different classes do not overlap, which makes one suppression do for all classes.

    The classes lie on a square grid and not in a row, as torchvision has them: coordinates of 90 classes then stay
    below ten times the image's side, and float32 resolves them ten times better.

    Args:
        boxes: ``[B, N, 4]`` inside the image.
        labels: ``[B, N]`` in 0..classes-1.
        classes: number of classes.
        size: height and width of the image, in pixels.
    """
    across = math.isqrt(max(classes - 1, 0)) + 1
    place = torch.arange(classes)
    corner = torch.stack([(place % across) * (size[1] + 1), (place // across) * (size[0] + 1)], 1)
    offsets = torch.cat([corner, corner], 1).to(boxes.dtype)
    return boxes + offsets[labels]


def best_of_levels(
    scores: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], per_level: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The candidates of a dense detector: of each level the best pairs of an anchor and a class.

    Args:
        scores: of each level, ``[B, A, C]`` in 0..1.
        deltas: of each level, ``[B, A, 4]``.
        anchors: of each level, ``[1, A, 4]``.
        per_level: pairs of a level at most.
        threshold: pairs that do not score more are dropped.

    Returns:
        Scores ``[B, N]``, -1 where dropped, deltas and anchors ``[B, N, 4]``, and labels ``[B, N]``.
    """
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for level_scores, level_deltas, level_anchors in zip(scores, deltas, anchors, strict=True):
        classes = int(level_scores.shape[-1])
        values, index = best(level_scores.flatten(1), per_level)
        anchor = torch.div(index, classes, rounding_mode="trunc")
        values = torch.where(values > threshold, values, DROPPED)
        found.append((values, pick(level_deltas, anchor), pick(level_anchors, anchor), index - anchor * classes))
    values, picked_deltas, picked_anchors, labels = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    return values, picked_deltas, picked_anchors, labels
