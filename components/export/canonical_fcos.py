"""FCOS with static shapes: the same arithmetic as torchvision's, without its boolean indexing.

Follows Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", 2019, in torchvision's implementation
(0.29).
"""

from torch import Tensor
from torchvision.models.detection import FCOS

from components.export.canonical_dense import CanonicalDense
from components.export.canonical_tail import decode_distances


class CanonicalFCOS(CanonicalDense):
    """A trained FCOS with static shapes, exact with the model's own counts; see `CanonicalDetector`."""

    model: FCOS

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """See `CanonicalDense.scores`."""
        return (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """See `CanonicalDense.decode`."""
        return decode_distances(deltas, anchors, self.model.box_coder)
