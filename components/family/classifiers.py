"""Image classifiers of timm (Apache-2.0): their names, and a factory."""

import fnmatch
import re
from typing import TYPE_CHECKING, Any

from components.core.errors import StepError, UserError

if TYPE_CHECKING:
    from torch import nn

FACTORY = "components.family.classifiers:build"
"""What a trained bundle's job names as its factory."""
LIBRARY = "timm/"
PRESETS = {
    "cpu": (
        "timm/lcnet_050",
        "timm/lcnet_100",
        "timm/mobilenetv3_small_050",
        "timm/mobilenetv3_small_100",
        "timm/mobilenetv3_large_100",
        "timm/mobilenetv4_conv_small",
        "timm/efficientnet_lite0",
        "timm/regnetx_002",
        "timm/resnet10t",
        "timm/resnet18",
    ),
    "gpu": (
        "timm/mobilenetv4_conv_medium",
        "timm/efficientnet_b0",
        "timm/efficientnet_b2",
        "timm/regnety_032",
        "timm/resnet18",
        "timm/resnet34",
        "timm/resnet50",
        "timm/convnext_atto",
        "timm/convnext_nano",
    ),
}
"""What is looked at where a job names nothing, by the kind of its device."""
MOST = 100
"""Models that the patterns of a job may stand for."""


def expand_classifiers(patterns: list[str], device: str) -> list[str]:
    """The models that names, patterns with `*` and `?`, and the presets `cpu` and `gpu` stand for, each once.

    Args:
        patterns: of the job; empty: the preset of its device.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: nothing has such a name, too many have, or timm is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError:
        raise UserError("task: classification: family needs timm; pip install 'hasten[family]'") from None
    found: list[str] = []
    for pattern in patterns or ["cpu" if device == "cpu" else "gpu"]:
        models = list(PRESETS.get(pattern, ()))
        if pattern.startswith(LIBRARY):
            models = [LIBRARY + name for name in fnmatch.filter(timm.list_models(), pattern.removeprefix(LIBRARY))]
        if not models:
            raise UserError(
                f"family.candidates: given {pattern!r}, which nothing is called; accepted for a classifier: timm/NAME, "
                f"patterns such as timm/resnet*, and the presets {', '.join(PRESETS)}"
            )
        found += models
    if len(found) > MOST:
        raise UserError(f"family.candidates: {len(found)} models are meant, at most {MOST} are accepted; name fewer")
    return list(dict.fromkeys(found))


def architecture(model: str) -> str:
    """A model's name without the number that it ends in: sizes of one architecture differ in it."""
    return re.sub(r"_?\d+$", "", model)


def build(model: str, classes: int, height: int, width: int) -> "nn.Module":
    """An untrained classifier: images ``[N, 3, H, W]``, prepared as the job says, to logits ``[N, classes]``.

    Args:
        model: `timm/NAME`.
        classes: how many there are.
        height: of the input in pixels.
        width: of the input in pixels; only models with a position for every patch are made for one size.

    Raises:
        StepError: timm is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise StepError(f"{model} needs timm, which is not installed; pip install 'hasten[family]'") from error
    name = model.removeprefix(LIBRARY)
    settings: dict[str, Any] = {"pretrained": False, "num_classes": classes}
    try:
        network: nn.Module = timm.create_model(name, img_size=(height, width), **settings)
    except TypeError:  # most networks of convolutions take any size, and no such argument
        network = timm.create_model(name, **settings)
    return network
