"""The sample's detector: a compact torchvision Faster R-CNN, as a user would write it.

Nothing here knows of hasten. The job file names :func:`compact_faster_rcnn` as the model factory, in the same way in
which a user's own job names the user's own function.
"""

from typing import Any

from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign

STRIDE_8, STRIDE_16, STRIDE_32 = 6, 13, 17


def compact_faster_rcnn(
    num_classes: int = 2,
    image_size: int = 416,
    fpn_channels: int = 128,
    box_head_channels: int = 192,
    anchor_sizes: tuple[tuple[int, ...], ...] = ((16, 24), (36, 52), (76, 108)),
    **faster_rcnn_options: Any,
) -> FasterRCNN:
    """MobileNetV2-FPN Faster R-CNN of about 3.7 M parameters (15 MB in float32).

    Args:
        num_classes: classes including the background.
        image_size: side in pixels to which the shorter image side is resized (torchvision's ``min_size``).
        fpn_channels: channels of the three FPN levels (strides 8, 16 and 32).
        box_head_channels: width of the two layers of the box head.
        anchor_sizes: anchor sides in pixels, one tuple a level.
        faster_rcnn_options: passed to :class:`torchvision.models.detection.FasterRCNN`.

    Returns:
        The detector with random weights. Input: a list of ``[3, H, W]`` float images in 0..1.
    """
    features = mobilenet_v2(weights=None).features[: STRIDE_32 + 1]
    backbone = BackboneWithFPN(
        features,
        return_layers={str(STRIDE_8): "0", str(STRIDE_16): "1", str(STRIDE_32): "2"},
        in_channels_list=[32, 96, 320],
        out_channels=fpn_channels,
    )
    # BackboneWithFPN adds a max-pooled fourth level by default; trees and cells are too small to need it.
    backbone.fpn.extra_blocks = None
    options: dict[str, Any] = {
        "min_size": image_size,
        "max_size": 2 * image_size,
        "rpn_anchor_generator": AnchorGenerator(sizes=anchor_sizes, aspect_ratios=((0.8, 1.25),) * len(anchor_sizes)),
        "box_roi_pool": MultiScaleRoIAlign(featmap_names=["0", "1", "2"], output_size=7, sampling_ratio=2),
        "box_head": _box_head(fpn_channels, box_head_channels),
        "box_predictor": _box_predictor(box_head_channels, num_classes),
    }
    return FasterRCNN(backbone, **(options | faster_rcnn_options))


def _box_head(fpn_channels: int, channels: int) -> Any:
    from torchvision.models.detection.faster_rcnn import TwoMLPHead

    return TwoMLPHead(fpn_channels * 7 * 7, channels)


def _box_predictor(channels: int, num_classes: int) -> Any:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    return FastRCNNPredictor(channels, num_classes)
