"""RetinaNet with static shapes: the same arithmetic as torchvision's, without its boolean indexing.

Follows Lin et al., "Focal Loss for Dense Object Detection", 2017, in torchvision's implementation (0.29).
"""

from torch import Tensor
from torchvision.models.detection import RetinaNet

from components.export.canonical_dense import CanonicalDense
from components.export.canonical_tail import decode


class CanonicalRetinaNet(CanonicalDense):
    """A trained RetinaNet with static shapes, exact with the model's own counts; see `CanonicalDetector`."""

    model: RetinaNet

    def scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """See `CanonicalDense.scores`."""
        return outputs["cls_logits"].sigmoid()

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """See `CanonicalDense.decode`."""
        return decode(deltas, anchors, self.model.box_coder)
