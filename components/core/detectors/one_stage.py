"""What one-stage detectors from outside torchvision look like here: torchvision's manners around a dense network.

Called in training mode with images and targets, such a detector returns its losses; in eval mode it returns detections
as torchvision's do. A subclass only says what its network predicts, and what its losses are. What is behind the network
is fixed: the best pairs of a place and a class, then one suppression in which classes do not see one another. So that
part can be re-expressed for every such detector alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from components.core.errors import StepError

Targets = Sequence[dict[str, Tensor]]
"""Of each image ``boxes`` ``[N, 4]`` as x1 y1 x2 y2 in its pixels and ``labels`` ``[N]``."""


class OneStageDetector(nn.Module, ABC):
    """A dense detector.

    Args:
        classes: how many there are.
        first_label: label of the first one; the others follow it.
        divisor: the network's input is padded below and on the right until both sides are multiples of it.
    """

    detections_per_img = 100
    """Detections of an image at most."""
    candidates = 1000
    """Pairs of a place and a class that enter the suppression at most."""
    score_thresh = 0.01
    """Pairs that do not score more are dropped."""
    nms_thresh = 0.6
    """Intersection over union beyond which the worse of two boxes of a class goes."""

    def __init__(self, classes: int, first_label: int, divisor: int) -> None:
        super().__init__()
        self.classes = classes
        self.first_label = first_label
        self.divisor = divisor

    @abstractmethod
    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes ``[B, A, 4]`` as x1 y1 x2 y2 in pixels and scores ``[B, A, C]`` in 0..1, whatever the images show.

        Args:
            images: ``[B, 3, H, W]`` in 0..1, with sides that are multiples of the divisor.
        """

    @abstractmethod
    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Losses by name; their sum is what is minimised.

        Args:
            images: as in `predict`.
            targets: with ``labels`` counted from 0.
        """

    def forward(
        self, images: Sequence[Tensor], targets: Targets | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training mode, detections in eval mode; images ``[3, H, W]`` in 0..1, all of one size.

        Raises:
            StepError: the images differ in size, or there are no targets to train on.
        """
        if len({tuple(image.shape) for image in images}) != 1:
            raise StepError(f"{type(self).__name__} takes images of one size; these differ")
        batch = torch.stack(list(images))
        if not self.training:
            return self._detect(batch)
        if targets is None:
            raise StepError(f"{type(self).__name__} needs targets in training mode")
        counted = [{"boxes": one["boxes"], "labels": one["labels"] - self.first_label} for one in targets]
        return self.losses(self.padded(batch), counted)

    def padded(self, images: Tensor) -> Tensor:
        """Images ``[B, 3, H, W]`` with black below and on the right, so that the network takes them."""
        height, width = (-int(side) % self.divisor for side in images.shape[-2:])
        return functional.pad(images, (0, width, 0, height)) if height or width else images

    def _detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        boxes, scores = self.predict(self.padded(images))
        height, width = images.shape[-2:]
        return [self._found(one_boxes, one, height, width) for one_boxes, one in zip(boxes, scores, strict=True)]

    def _found(self, boxes: Tensor, scores: Tensor, height: int, width: int) -> dict[str, Tensor]:
        values, index = scores.flatten().topk(min(self.candidates, scores.numel()))
        kept = values > self.score_thresh
        values, index = values[kept], index[kept]
        place = torch.div(index, self.classes, rounding_mode="trunc")
        labels = index - place * self.classes
        found = torchvision.ops.clip_boxes_to_image(boxes[place], (height, width))
        best = torchvision.ops.batched_nms(found, values, labels, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": found[best], "scores": values[best], "labels": labels[best] + self.first_label}


def quick_batch_norms(module: nn.Module) -> None:
    """Lets every batch norm forget at torch's own pace, a tenth a step.

    YOLO and EfficientDet come with a thirtieth and a hundredth, for trainings of a hundred thousand steps: after a
    hundred, most of what they would normalise with is still what they were made with.
    """
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1
