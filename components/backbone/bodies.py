"""Networks of timm and torchvision as bodies: an image in, feature maps at wanted strides out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.core.errors import StepError

_SIDE = 128
"""Side in pixels of the image that strides are found out with."""


class Body(nn.Module):
    """Gives the feature maps at some strides.

    Args:
        net: returns one map ``[N, C, h, w]`` a stride, in order; a list or a dict.
        channels: stride -> channels of that map, in ascending order of the strides.
    """

    def __init__(self, net: nn.Module, channels: dict[int, int]) -> None:
        super().__init__()
        self.net = net
        self.channels = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images ``[N, 3, H, W]`` -> maps, finest first."""
        found = self.net(images)
        return list(found.values()) if isinstance(found, dict) else list(found)


def make_body(name: str, strides: Sequence[int]) -> Body:
    """A body with random weights.

    Args:
        name: ``timm/NAME`` or ``torchvision/NAME``.
        strides: wanted, ascending, each once.

    Raises:
        StepError: the network has no feature maps at one of the strides.
    """
    library, _, model = name.partition("/")
    return (_timm_body if library == "timm" else _torchvision_body)(model, strides)


def _timm_body(model: str, strides: Sequence[int]) -> Body:
    import timm

    whole: Any = timm.create_model(model, pretrained=False, features_only=True)
    offered = list(whole.feature_info.reduction())
    _refuse_missing(f"timm/{model}", strides, offered)
    # The last of several maps at one stride has seen most.
    indices = [max(index for index, one in enumerate(offered) if one == stride) for stride in strides]
    net: Any = timm.create_model(model, pretrained=False, features_only=True, out_indices=indices)
    channels = dict(zip(strides, net.feature_info.channels(), strict=True))
    _drop_idle_blocks(net)
    return _checked(f"timm/{model}", Body(net, channels))


def _drop_idle_blocks(net: Any) -> None:
    """Removes the blocks behind the last map, which timm's MobileNets and EfficientNets run for nothing.

    They would cost time in eager mode and in training, and parameters without a gradient stop several processes.
    """
    blocks = getattr(net, "blocks", None)
    if not isinstance(blocks, nn.Sequential):
        return
    image = torch.zeros(1, 3, _SIDE, _SIDE)
    training = net.training
    net.eval()
    with torch.no_grad():
        shapes = [one.shape for one in net(image)]
        for count in range(len(blocks) - 1, 0, -1):
            kept, net.blocks = net.blocks, blocks[:count]
            if [one.shape for one in net(image)] != shapes:
                net.blocks = kept
                break
    net.train(training)


def _torchvision_body(model: str, strides: Sequence[int]) -> Body:
    from torchvision.models import get_model
    from torchvision.models.feature_extraction import create_feature_extractor

    whole = get_model(model, weights=None)
    maps = _maps(whole)
    offered = sorted({stride for stride, _, _ in maps})
    _refuse_missing(f"torchvision/{model}", strides, offered)
    last = {stride: (name, channels) for stride, name, channels in maps}
    nodes = {last[stride][0]: str(stride) for stride in strides}
    net = create_feature_extractor(whole, return_nodes=nodes)
    return _checked(f"torchvision/{model}", Body(net, {stride: last[stride][1] for stride in strides}))


def _maps(whole: nn.Module) -> list[tuple[int, str, int]]:
    """(stride, name, channels) of the blocks of a classifier, in the order in which they run.

    Blocks are modules with parts, not deep inside, and poolings. A block of 1 x 1 convolutions at the end of its
    stride is left out: it widens the features for the classifier, which a detector has no use for.
    """
    found: list[tuple[int, str, int]] = []
    hooks = []

    def note(name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[-1] < 2:
                return
            kernels = [one.kernel_size for one in module.modules() if isinstance(one, nn.Conv2d)]
            stride = _SIDE // output.shape[-1]
            if kernels and set(kernels) == {(1, 1)} and found and found[-1][0] == stride:
                return
            found.append((stride, name, int(output.shape[1])))

        hooks.append(module.register_forward_hook(hook))

    for name, module in whole.named_modules():
        has_parts = any(True for _ in module.children())
        if name and name.count(".") <= 1 and name != "features" and (has_parts or isinstance(module, nn.MaxPool2d)):
            note(name, module)
    with torch.no_grad():
        whole.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    for hook in hooks:
        hook.remove()
    return found


def _refuse_missing(name: str, strides: Sequence[int], offered: Sequence[int]) -> None:
    missing = [stride for stride in strides if stride not in offered]
    if missing:
        raise StepError(
            f"{name} has no feature maps at stride {', '.join(map(str, missing))}, which the user's detector looks at; "
            f"it has them at {', '.join(map(str, dict.fromkeys(offered)))}"
        )


def _checked(name: str, body: Body) -> Body:
    """The body, once it has shown that its maps are what it says."""
    training = body.training
    with torch.no_grad():
        maps = body.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    body.train(training)
    expected = [(channels, -(-_SIDE // stride)) for stride, channels in body.channels.items()]
    shapes = [tuple(one.shape) for one in maps]
    if shapes != [(1, channels, side, side) for channels, side in expected]:
        raise StepError(f"{name} gives feature maps of the shapes {shapes}, which are no [N, C, H, W] at its strides")
    return body
