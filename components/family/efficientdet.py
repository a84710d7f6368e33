"""EfficientDet D0 to D2 of effdet (Apache-2.0), in torchvision's manners.

Follows Tan et al., "EfficientDet: Scalable and Efficient Object Detection", 2020.
"""

import math

import torch
from effdet import EfficientDet as Network
from effdet import get_efficientdet_config
from effdet.anchors import AnchorLabeler, Anchors
from effdet.efficientdet import Interpolate2d
from effdet.loss import DetectionLoss
from torch import Tensor

from components.core.detectors.one_stage import OneStageDetector, Targets, quick_batch_norms

DIVISOR = 128
"""The coarsest level's stride."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What its EfficientNet backbone is given; ImageNet's."""
_MOST_GROWTH = math.log(1000 / 16)
"""Of a box over its anchor, as torchvision has it: an untrained network would overflow."""


class EfficientDet(OneStageDetector):
    """EfficientDet of a size `d0`, `d1` or `d2`; of any input size, not of its size's own alone."""

    def __init__(self, size: str, classes: int, first_label: int) -> None:
        super().__init__(classes, first_label, DIVISOR)
        self.config = get_efficientdet_config(f"efficientdet_{size}")
        self.config.num_classes = classes
        self.network = Network(self.config, pretrained_backbone=False)
        for part in self.network.modules():
            if isinstance(part, Interpolate2d):
                # Made for one image size; from level to level it is always a factor of two.
                part.size, part.scale_factor = None, 2.0
        quick_batch_norms(self.network)
        # Its many depthwise convolutions train faster so on a CPU; a plain YOLO's do not.
        self.network.to(memory_format=torch.channels_last)
        self.measure = DetectionLoss(self.config)
        self._anchors: dict[tuple[int, int], Anchors] = {}

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `OneStageDetector.predict`."""
        logits, deltas = self.network(_normalized(images))
        scores = torch.cat([_rows(level, self.classes) for level in logits], 1).sigmoid()
        anchors = self._anchors_of(images).boxes.unsqueeze(0)
        return _decode(torch.cat([_rows(level, 4) for level in deltas], 1), anchors), scores

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """See `OneStageDetector.losses`."""
        logits, deltas = self.network(_normalized(images))
        labeler = AnchorLabeler(self._anchors_of(images), self.classes)
        wanted = labeler.batch_label_anchors(
            [_swapped(one["boxes"]) for one in targets], [one["labels"] + 1 for one in targets]
        )
        _, classification, boxes = self.measure(logits, deltas, *wanted)
        return {"cls": classification, "box": boxes * self.config.box_loss_weight}

    def _anchors_of(self, images: Tensor) -> Anchors:
        height, width = map(int, images.shape[-2:])
        if (height, width) not in self._anchors:
            config = self.config
            self._anchors[height, width] = Anchors(
                config.min_level,
                config.max_level,
                config.num_scales,
                config.aspect_ratios,
                config.anchor_scale,
                (height, width),
            )
        return self._anchors[height, width].to(images.device)


def _normalized(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (images - mean) / std


def _rows(level: Tensor, width: int) -> Tensor:
    """``[B, A * width, h, w]`` -> ``[B, h * w * A, width]``, in the order of the anchors."""
    return level.permute(0, 2, 3, 1).reshape(int(level.shape[0]), -1, width)


def _swapped(boxes: Tensor) -> Tensor:
    """x1 y1 x2 y2 <-> y1 x1 y2 x2."""
    return boxes[..., [1, 0, 3, 2]]


def _decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes ``[B, A, 4]`` as x1 y1 x2 y2 of deltas y, x, h, w and anchors y1 x1 y2 x2."""
    shift, growth = deltas.split(2, -1)  # type: ignore[no-untyped-call]
    size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + shift * size
    half = size * growth.clamp(max=_MOST_GROWTH).exp() / 2
    return torch.cat([(centre - half).flip(-1), (centre + half).flip(-1)], -1)
