"""YOLOv9 and YOLOX of libreyolo (MIT), in torchvision's manners.

YOLOv9: Wang et al., "YOLOv9: Learning What You Want to Learn Using Programmable Gradient Information", 2024,
without its auxiliary branch. YOLOX: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", 2021.
"""

from collections.abc import Callable

import torch
from libreyolo.models.yolo9.nn import LibreYOLO9Model
from libreyolo.models.yolox.nn import LibreYOLOXModel
from torch import Tensor
from torchvision.ops import box_convert

from components.core.detectors.one_stage import OneStageDetector, Targets, quick_batch_norms

DIVISOR = 32
"""The coarsest level's stride."""
_PRIOR = 0.01
"""Score that every place starts with."""


class Yolo9(OneStageDetector):
    """YOLOv9 of a size `t`, `s`, `m` or `c`; takes images in 0..1 as they are."""

    def __init__(self, size: str, classes: int, first_label: int) -> None:
        super().__init__(classes, first_label, DIVISOR)
        self.network = LibreYOLO9Model(config=size, nb_classes=classes)
        # Traced, a grid that was kept would be that of another image.
        self.network.head.export = True
        quick_batch_norms(self.network)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStageDetector.predict`."""
        found = self.network(images).transpose(1, 2)
        return found[..., :4], found[..., 4:]

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """See `OneStageDetector.losses`."""
        height, width = images.shape[-2:]
        scale = images.new_tensor([width, height, width, height])
        found = self.network(images, _table(targets, lambda boxes: boxes / scale, images))
        return {name: found[f"{name}_loss"] for name in ("box", "dfl", "cls")}


class YoloX(OneStageDetector):
    """YOLOX of a size `n` (nano), `t` (tiny), `s`, `m`, `l` or `x`; computes on BGR images in 0..255."""

    def __init__(self, size: str, classes: int, first_label: int) -> None:
        super().__init__(classes, first_label, DIVISOR)
        self.network = LibreYOLOXModel(config=size, nb_classes=classes)
        self.network.init_weights(_PRIOR)
        self.network.head.export = True
        quick_batch_norms(self.network)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStageDetector.predict`."""
        found = self.network(_as_bytes(images))
        centre, half = found[..., :2], found[..., 2:4] / 2
        return torch.cat([centre - half, centre + half], -1), found[..., 4:5] * found[..., 5:]

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """See `OneStageDetector.losses`."""
        found = self.network(_as_bytes(images), _table(targets, _centred, images))
        return {name: found[f"{name}_loss"] for name in ("iou", "obj", "cls")}


def _as_bytes(images: Tensor) -> Tensor:
    return images.flip(1) * 255


def _centred(boxes: Tensor) -> Tensor:
    centred: Tensor = box_convert(boxes, "xyxy", "cxcywh")
    return centred


def _table(targets: Targets, coordinates: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Class and coordinates of every box, ``[B, most boxes, 5]``; rows of zeros where an image has fewer."""
    most = max(1, *(len(one["labels"]) for one in targets))
    table = like.new_zeros(len(targets), most, 5)
    for row, one in zip(table, targets, strict=True):
        count = len(one["labels"])
        row[:count, 0] = one["labels"].to(like.dtype)
        row[:count, 1:] = coordinates(one["boxes"])
    return table
