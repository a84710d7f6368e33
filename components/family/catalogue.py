"""The model families and their sizes, smallest first. Light: nothing here imports a library of models."""

import fnmatch

from components.core.errors import UserError

DETECTORS: dict[str, tuple[str, ...]] = {
    "yolo9": ("t", "s", "m", "c"),
    "yolox": ("n", "t", "s", "m", "l", "x"),
    "efficientdet": ("d0", "d1", "d2"),
    "ssdlite": ("small", "large"),
    "retinanet": ("r18", "r34", "r50"),
    "fcos": ("r18", "r34", "r50"),
}
"""Family -> sizes. SSDLite's are those of its MobileNetV3, RetinaNet's and FCOS's those of their ResNet."""
PRESETS = {
    "cpu": (
        "yolox-n",
        "yolox-t",
        "yolo9-t",
        "yolo9-s",
        "efficientdet-d0",
        "efficientdet-d1",
        "efficientdet-d2",
        "ssdlite-small",
        "ssdlite-large",
        "retinanet-r18",
        "fcos-r18",
    ),
    "gpu": (
        "yolox-s",
        "yolox-m",
        "yolo9-s",
        "yolo9-m",
        "efficientdet-d0",
        "efficientdet-d1",
        "efficientdet-d2",
        "ssdlite-large",
        "retinanet-r50",
        "fcos-r50",
    ),
}
"""What is looked at where a job names nothing, by the kind of its device."""


def expand(patterns: list[str], device: str) -> list[str]:
    """The models that names, patterns with `*` and `?`, and the presets `cpu` and `gpu` stand for, each once.

    Args:
        patterns: of the job; empty: the preset of its device.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: nothing has such a name.
    """
    known = [f"{family}-{size}" for family, sizes in DETECTORS.items() for size in sizes]
    found: list[str] = []
    for pattern in patterns or ["cpu" if device == "cpu" else "gpu"]:
        models = PRESETS.get(pattern) or fnmatch.filter(known, pattern)
        if not models:
            raise UserError(
                f"family.candidates: given {pattern!r}, which nothing is called; accepted: {', '.join(known)}, "
                f"patterns such as yolo9-*, and the presets {', '.join(PRESETS)}"
            )
        found += models
    return list(dict.fromkeys(found))


def parse_model(name: str) -> tuple[str, str]:
    """Family and size of a name such as `yolo9-t`.

    Raises:
        UserError: there is no such family or size.
    """
    family, _, size = name.partition("-")
    if family not in DETECTORS:
        raise UserError(f"{name}: there is no family {family!r}; accepted: {', '.join(DETECTORS)}")
    if size not in DETECTORS[family]:
        sizes = ", ".join(f"{family}-{known}" for known in DETECTORS[family])
        raise UserError(f"{name}: {family} has no size {size!r}; accepted: {sizes}")
    return family, size
