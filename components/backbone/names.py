"""Names of candidates: globs and presets become `timm/NAME` and `torchvision/NAME`. Nothing is built to find out."""

import difflib
import fnmatch
import re
from collections.abc import Sequence
from functools import cache

from components.core.errors import UserError

PRESETS: dict[str, tuple[str, ...]] = {
    "edge": (
        "timm/lcnet_050",
        "timm/lcnet_075",
        "timm/lcnet_100",
        "timm/mobilenetv3_small_050",
        "timm/mobilenetv3_small_075",
        "timm/mobilenetv3_small_100",
        "timm/mobilenetv3_large_075",
        "timm/mobilenetv3_large_100",
        "timm/mobilenetv4_conv_small_050",
        "timm/mobilenetv4_conv_small",
        "timm/mobilenetv2_050",
        "timm/mobilenetv2_100",
        "timm/efficientnet_lite0",
        "timm/tinynet_c",
        "timm/resnet10t",
        "torchvision/shufflenet_v2_x0_5",
        "torchvision/shufflenet_v2_x1_0",
    ),
    "server": (
        "timm/resnet18d",
        "timm/resnet26d",
        "timm/resnet34d",
        "timm/resnet50d",
        "timm/mobilenetv4_conv_medium",
        "timm/mobilenetv4_conv_large",
        "timm/efficientnet_lite2",
        "timm/efficientnet_b0",
        "timm/efficientnet_b2",
        "timm/convnext_atto",
        "timm/convnext_nano",
        "timm/convnext_tiny",
        "torchvision/regnet_y_800mf",
        "torchvision/regnet_y_3_2gf",
    ),
}
"""Networks of convolutions alone, since these are what every runtime has fast kernels and INT8 for."""
LIBRARIES = ("timm", "torchvision")
MOST = 500
"""Candidates of a search; a glob that means more is a mistake."""


def expand(given: Sequence[str], device: str) -> list[str]:
    """Candidates by their full names, each once, in the order given.

    Args:
        given: names, globs and presets; empty: the preset for the device.
        device: of the job's target.

    Raises:
        UserError: a name that nobody knows, a glob without a match, or too many.
    """
    found: dict[str, None] = {}
    for pattern in given or (["edge"] if device == "cpu" else ["server"]):
        for name in PRESETS.get(pattern) or _matches(pattern):
            found[name] = None
    if len(found) > MOST:
        raise UserError(f"backbone.candidates: {len(found)} networks match, at most {MOST}; name fewer")
    return list(found)


def family_of(name: str) -> str:
    """The architecture of which a network is a size: its name without the numbers that say how large it is.

    ``timm/resnet18`` and ``timm/resnet34`` are both ``timm/resnet``; versions (``v3``) stay.
    """
    library, _, model = name.partition("/")
    tokens = [re.sub(r"(?<![v\d])\d+(?=[a-z]?$)", "", token) for token in model.split("_") if not token[:1].isdigit()]
    return f"{library}/{'_'.join(token for token in tokens if token)}"


def _matches(pattern: str) -> list[str]:
    library, separator, model = pattern.partition("/")
    if not separator or library not in LIBRARIES or not model:
        near = difflib.get_close_matches(pattern, PRESETS, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UserError(
            f"backbone.candidates: given {pattern!r}{hint}; accepted: {', '.join(PRESETS)}, timm/NAME or "
            "torchvision/NAME, with * and ? for any characters"
        )
    known = _known(library)
    matched = [name for name in known if fnmatch.fnmatchcase(name, model)]
    if not matched:
        near = difflib.get_close_matches(model, known, n=1)
        hint = f", did you mean {library}/{near[0]}?" if near else ""
        raise UserError(f"backbone.candidates: {library} has no model {model!r}{hint}")
    return [f"{library}/{name}" for name in matched]


@cache
def _known(library: str) -> tuple[str, ...]:
    if library == "timm":
        try:
            import timm
        except ModuleNotFoundError:
            raise UserError(
                "backbone.candidates: timm is not installed (pip install 'hasten[train]'); or name torchvision's alone"
            ) from None
        return tuple(timm.list_models())
    import torchvision

    return tuple(torchvision.models.list_models(module=torchvision.models))
