"""What lies between a body and the user's heads: it gives the maps that the user's backbone gave, by name and shape."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from components.backbone.bodies import Body
from components.core.errors import StepError


@dataclass(frozen=True)
class Level:
    """A feature map that the heads look at."""

    name: str
    stride: int
    channels: int


class PyramidBackbone(nn.Module):
    """A body with a feature pyramid (Lin et al. 2017); its parts are named as in torchvision's `BackboneWithFPN`."""

    def __init__(self, body: Body, levels: Sequence[Level], extra: ExtraFPNBlock | None) -> None:
        super().__init__()
        self.body = body
        self.names = [level.name for level in levels]
        self.strides = [level.stride for level in levels]
        self.out_channels = levels[0].channels
        inner = [body.channels[stride] for stride in self.strides]
        self.fpn = FeaturePyramidNetwork(inner, self.out_channels, extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images ``[N, 3, H, W]`` -> maps by level."""
        by_stride = dict(zip(self.body.channels, self.body(images), strict=True))
        maps = OrderedDict((name, by_stride[stride]) for name, stride in zip(self.names, self.strides, strict=True))
        found: dict[str, Tensor] = self.fpn(maps)
        return found


class LateralBackbone(nn.Module):
    """A body for heads that want another number of channels on every level, as SSD's do; coarser levels are added."""

    def __init__(self, body: Body, levels: Sequence[Level], out_channels: Any) -> None:
        super().__init__()
        self.body = body
        self.names = [level.name for level in levels]
        self.out_channels = out_channels
        self.lateral = nn.ModuleList()
        self.extra = nn.ModuleList()
        before = 0
        for level in levels:
            if level.stride in body.channels:
                self.lateral.append(_pointwise(body.channels[level.stride], level.channels))
            else:
                self.extra.append(_halving(before, level.channels))
            before = level.channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images ``[N, 3, H, W]`` -> maps by level."""
        maps = [lateral(one) for lateral, one in zip(self.lateral, self.body(images), strict=True)]
        for extra in self.extra:
            maps.append(extra(maps[-1]))
        return OrderedDict(zip(self.names, maps, strict=True))


def base_levels(backbone: nn.Module, levels: Sequence[Level]) -> list[Level]:
    """The levels of the user's backbone that its body gives; the others its pyramid adds on top."""
    extra = getattr(getattr(backbone, "fpn", None), "extra_blocks", None)
    added = {LastLevelMaxPool: 1, LastLevelP6P7: 2}.get(type(extra), 0)
    return list(levels[: len(levels) - added])


def extra_block(backbone: nn.Module, coarsest: int) -> ExtraFPNBlock | None:
    """The user's block above the pyramid, made anew for a body whose coarsest map has so many channels.

    Raises:
        StepError: it is of a kind that nobody knows how to make.
    """
    extra = getattr(getattr(backbone, "fpn", None), "extra_blocks", None)
    if extra is None:
        return None
    if type(extra) is LastLevelMaxPool:
        return LastLevelMaxPool()
    if type(extra) is LastLevelP6P7:
        channels = extra.p6.out_channels
        return LastLevelP6P7(channels if extra.use_P5 else coarsest, channels)
    raise StepError(f"the pyramid's extra block {type(extra).__name__} is none of LastLevelMaxPool, LastLevelP6P7")


def _pointwise(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU6(inplace=True))


def _halving(inside: int, outside: int) -> nn.Sequential:
    """Half the height and width, rounded up: narrow, depthwise 3 x 3 with stride 2, wide."""
    narrow = max(outside // 2, 8)
    return nn.Sequential(
        *_pointwise(inside, narrow),
        nn.Conv2d(narrow, narrow, 3, 2, 1, groups=narrow, bias=False),
        nn.BatchNorm2d(narrow),
        nn.ReLU6(inplace=True),
        *_pointwise(narrow, outside),
    )
