"""Factory of the rung: a detector of a family and size, untrained."""

from typing import TYPE_CHECKING

from components.core.errors import StepError
from components.family.catalogue import parse_model

if TYPE_CHECKING:
    from torch import nn

FACTORY = "components.family.build:build"
"""What a trained bundle's job names as its factory."""


def build(model: str, classes: int, height: int, width: int, first_label: int = 1) -> "nn.Module":
    """An untrained detector in torchvision's manners.

    In training mode it is called with images and targets and returns a dict of losses; in eval mode it returns boxes,
    scores and labels of each image.

    Args:
        model: family and size, for instance `yolo9-t`; `catalogue` has them all.
        classes: how many there are.
        height: of the input in pixels.
        width: of the input in pixels.
        first_label: label of the first class; the others follow it.

    Raises:
        UserError: there is no such family or size.
        StepError: its library is not installed.
    """
    family, size = parse_model(model)
    try:
        return _build(family, size, classes, height, width, first_label)
    except ModuleNotFoundError as error:
        raise StepError(f"{model} needs {error.name}, which is not installed; pip install 'hasten[family]'") from error


def _build(family: str, size: str, classes: int, height: int, width: int, first_label: int) -> "nn.Module":
    if family == "yolo9":
        from components.family.yolo import Yolo9

        return Yolo9(size, classes, first_label)
    if family == "yolox":
        from components.family.yolo import YoloX

        return YoloX(size, classes, first_label)
    if family == "efficientdet":
        from components.family.efficientdet import EfficientDet

        return EfficientDet(size, classes, first_label)
    from components.family.torchvision_detectors import labels_of, pyramid_detector, ssdlite

    labels = labels_of(family, classes, first_label)
    detector: nn.Module = (
        ssdlite(size, labels, height, width)
        if family == "ssdlite"
        else pyramid_detector(family, size, labels, height, width)
    )
    return detector
