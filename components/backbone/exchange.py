"""Puts another backbone into a torchvision detector: heads, anchors, thresholds and transform stay the user's own."""

import math
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS

from components.backbone.bodies import make_body
from components.backbone.necks import LateralBackbone, Level, PyramidBackbone, base_levels, extra_block
from components.core.errors import StepError

COARSEST = 32
"""Stride up to which a body gives the maps itself; what is coarser is made of them."""


def exchange(model: Any, name: str, height: int, width: int) -> nn.Module:
    """The detector with the backbone exchanged, in place.

    Args:
        model: a detector with the parts `transform` and `backbone`, as torchvision's have.
        name: ``timm/NAME`` or ``torchvision/NAME``.
        height: of the input that the levels are found out with, in pixels.
        width: of it.

    Raises:
        StepError: it is no such detector, or the network does not give what its heads look at.
    """
    levels = levels_of(model, height, width)
    old, channels = model.backbone, {level.channels for level in levels}
    if len(channels) == 1:
        base = base_levels(old, levels)
        body = make_body(name, sorted({level.stride for level in base}))
        extra = extra_block(old, body.channels[base[-1].stride])
        model.backbone = PyramidBackbone(body, base, extra)
    else:
        body = make_body(name, sorted({level.stride for level in levels if level.stride <= COARSEST}))
        model.backbone = LateralBackbone(body, levels, getattr(old, "out_channels", None))
    found = levels_of(model, height, width)
    if found != levels:
        raise StepError(f"{name} gives the heads {_words(found)}, they look at {_words(levels)}")
    return model  # type: ignore[no-any-return]


def levels_of(model: Any, height: int, width: int) -> list[Level]:
    """The feature maps that a detector's heads look at, finest first.

    Raises:
        StepError: it is no detector with `transform` and `backbone`.
    """
    if not all(isinstance(getattr(model, part, None), nn.Module) for part in ("transform", "backbone")):
        raise StepError(
            f"{type(model).__name__} has no parts transform and backbone, as torchvision's detectors have; "
            "its backbone cannot be exchanged"
        )
    training = model.training
    model.eval()
    with torch.no_grad():
        images, _ = model.transform([torch.zeros(3, height, width)])
        maps = model.backbone(images.tensors)
    model.train(training)
    maps = {"0": maps} if isinstance(maps, torch.Tensor) else maps
    side = max(images.tensors.shape[-2:])
    return [Level(str(name), _stride(side, max(one.shape[-2:])), int(one.shape[1])) for name, one in maps.items()]


def resize(model: Any, height: int, width: int, before: tuple[int, int]) -> None:
    """Makes a detector work at another input size, its anchors shrunk or grown with the image.

    Args:
        model: a torchvision detector.
        height: of the new input, in pixels.
        width: of it.
        before: height and width that its anchors are meant for.
    """
    transform = model.transform
    if getattr(transform, "fixed_size", None) is not None:
        transform.fixed_size = (width, height)
    transform.min_size, transform.max_size = (min(height, width),), max(height, width)
    scale = math.sqrt(height * width / (before[0] * before[1]))
    if isinstance(model, FCOS):
        return  # its anchors are the strides
    for part in model.modules():
        if isinstance(part, AnchorGenerator):
            part.sizes = tuple(tuple(side * scale for side in sides) for sides in part.sizes)
            part.cell_anchors = [anchors * scale for anchors in part.cell_anchors]
    pool = getattr(getattr(model, "roi_heads", None), "box_roi_pool", None)
    if pool is not None and hasattr(pool, "canonical_scale"):
        pool.canonical_scale = max(round(pool.canonical_scale * scale), 1)


def _stride(image: int, level: int) -> int:
    """The power of two that is nearest, since maps of odd sizes are rounded up."""
    return int(2 ** round(math.log2(image / level)))


def _words(levels: list[Level]) -> str:
    return ", ".join(f"{level.name} (stride {level.stride}, {level.channels} channels)" for level in levels)
