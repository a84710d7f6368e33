"""SSDLite, RetinaNet and FCOS of torchvision (BSD-3-Clause), on the backbones that their papers use.

SSDLite: Sandler et al., "MobileNetV2", 2018, on a MobileNetV3. RetinaNet: Lin et al., "Focal Loss for Dense Object
Detection", 2017. FCOS: Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", 2019.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from components.core.errors import UserError

DETECTIONS = 100
"""Detections of an image at most."""
_MOBILENETS = {"small": mobilenet_v3_small, "large": mobilenet_v3_large}
_RESNETS = {"r18": "resnet18", "r34": "resnet34", "r50": "resnet50"}


def ssdlite(size: str, labels: int, height: int, width: int) -> SSD:
    """SSDLite on a MobileNetV3 `small` or `large`, whose last layers are half as wide, as for training from scratch.

    Args:
        size: of the backbone.
        labels: how many labels there are, the background included, which is 0.
        height: of the input in pixels.
        width: of the input in pixels.
    """
    norm_layer = partial(nn.BatchNorm2d, eps=0.001)
    features: Any = _MOBILENETS[size](weights=None, norm_layer=norm_layer, reduced_tail=True).features
    last_stage = max(position for position, block in enumerate(features) if getattr(block, "_is_cn", False))
    backbone = SSDLiteFeatureExtractorMobileNet(features, last_stage, norm_layer)
    boxes = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)  # type: ignore[arg-type]
    with torch.no_grad():
        channels = [int(feature.shape[1]) for feature in backbone.eval()(torch.zeros(1, 3, 64, 64)).values()]
    return SSD(
        backbone.train(),
        boxes,
        (width, height),
        labels,
        head=SSDLiteHead(channels, boxes.num_anchors_per_location(), labels, norm_layer),
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        score_thresh=0.01,
        nms_thresh=0.55,
        detections_per_img=DETECTIONS,
        topk_candidates=300,
    )


def pyramid_detector(family: str, size: str, labels: int, height: int, width: int) -> RetinaNet | FCOS:
    """RetinaNet or FCOS on a ResNet with a feature pyramid of the levels 3 to 7.

    Args:
        family: `retinanet` or `fcos`.
        size: of the ResNet: `r18`, `r34` or `r50`.
        labels: how many labels there are, 0 included.
        height: of the input in pixels.
        width: of the input in pixels.
    """
    backbone = resnet_fpn_backbone(
        backbone_name=_RESNETS[size],
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    make = {"retinanet": RetinaNet, "fcos": FCOS}[family]
    # An image that fits the input is not resized again.
    sides = {"min_size": min(height, width), "max_size": max(height, width)}
    return make(backbone, labels, detections_per_img=DETECTIONS, **sides)  # type: ignore[arg-type]


def labels_of(family: str, classes: int, first_label: int) -> int:
    """How many labels such a detector tells apart.

    Raises:
        UserError: the data's first label is what an SSD means the background by.
    """
    if family == "ssdlite" and first_label < 1:
        raise UserError("ssdlite takes label 0 for the background, and a category of the data has id 0")
    return first_label + classes
