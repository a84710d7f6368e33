"""Chooses the static re-expression of a detector."""

from typing import Any

from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from components.core.detectors.one_stage import OneStageDetector
from components.core.errors import StepError
from components.export.canonical_detector import CandidateCounts, CanonicalDetector
from components.export.canonical_faster_rcnn import CanonicalFasterRCNN
from components.export.canonical_fcos import CanonicalFCOS
from components.export.canonical_one_stage import CanonicalOneStage
from components.export.canonical_retinanet import CanonicalRetinaNet
from components.export.canonical_ssd import CanonicalSSD

_ADAPTERS: dict[type[Any], Any] = {
    FasterRCNN: CanonicalFasterRCNN,
    RetinaNet: CanonicalRetinaNet,
    FCOS: CanonicalFCOS,
    SSD: CanonicalSSD,
    OneStageDetector: CanonicalOneStage,
}
_METHODS = ("forward", "postprocess_detections", "padded", "_detect", "_found")
"""Methods whose arithmetic an adapter replaces."""
_PARTS: dict[type[Any], dict[str, type[Any]]] = {
    FasterRCNN: {
        "transform": GeneralizedRCNNTransform,
        "rpn": RegionProposalNetwork,
        "rpn.box_coder": BoxCoder,
        "roi_heads": RoIHeads,
        "roi_heads.box_coder": BoxCoder,
        "roi_heads.box_roi_pool": MultiScaleRoIAlign,
    },
    RetinaNet: {"transform": GeneralizedRCNNTransform, "box_coder": BoxCoder},
    FCOS: {"transform": GeneralizedRCNNTransform, "box_coder": BoxLinearCoder},
    SSD: {"transform": GeneralizedRCNNTransform, "box_coder": BoxCoder},
    OneStageDetector: {},
}
"""Parts of a detector whose arithmetic an adapter replaces: what torchvision has there."""


def canonical(model: Any, height: int, width: int, counts: CandidateCounts | None = None) -> CanonicalDetector:
    """Re-expresses a detector with static shapes.

    Args:
        model: a torchvision Faster R-CNN, RetinaNet, FCOS, SSD or SSDLite, with any backbone and any heads, or one of
            the rung `family`.
        height: of the input, in pixels.
        width: of the input, in pixels.
        counts: boxes that the tail carries; default: as many as the model has, which is exact.

    Raises:
        StepError: `unsupported` has a reason.
    """
    if reason := unsupported(model):
        raise StepError(reason)
    adapter = next(adapter for known, adapter in _ADAPTERS.items() if isinstance(model, known))
    detector: CanonicalDetector = adapter(model, height, width, counts)
    return detector


def unsupported(model: Any) -> str | None:
    """Why a detector has no static re-expression, or None where it has one.

    A subclass is taken only where all that an adapter replaces is torchvision's own: a changed tail would be lost
    without a word.
    """
    name = type(model).__name__
    architecture = next((known for known in _ADAPTERS if isinstance(model, known)), None)
    if architecture is None:
        accepted = ", ".join(known.__name__ for known in _ADAPTERS if known is not OneStageDetector)
        return f"{name} has no static re-expression (torchvision's {accepted} have one)"
    heads = getattr(model, "roi_heads", None)
    for what in ("mask", "keypoint"):
        if heads is not None and getattr(heads, f"{what}_predictor", None) is not None:
            return f"{name} has no static re-expression: it also predicts {what}s, which would be lost"
    for method in _METHODS:
        if getattr(type(model), method, None) is not getattr(architecture, method, None):
            return f"{name} has no static re-expression: it has a {method} of its own"
    for path, expected in _PARTS[architecture].items():
        part = model
        for attribute in path.split("."):
            part = getattr(part, attribute, None)
        if type(part) is not expected:
            return f"{name} has no static re-expression: its {path} is {type(part).__name__}, not {expected.__name__}"
    return None
