"""The model families and their sizes, smallest first. Light: nothing here imports a library of models."""

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
STRIDES = {"yolo9": 32, "yolox": 32, "efficientdet": 128}
"""What the sides of an input are padded to, where a family needs it; torchvision's pad inside themselves."""


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
