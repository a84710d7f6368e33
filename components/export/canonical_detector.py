"""The frame of a detector with static shapes: torchvision's transform before it, its own coordinates behind it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList


@dataclass(frozen=True)
class CandidateCounts:
    """How many boxes the tail carries; fewer is faster, and costs accuracy at some point."""

    per_level: int
    """Boxes of each FPN level (SSD: of each class) that are looked at."""
    proposals: int
    """Boxes of all levels that go on: into the box head (Faster R-CNN), or into the last NMS (the others)."""


class CanonicalDetector(nn.Module, ABC):
    """Wraps a trained detector; shares its weights.

    Input ``[B, 3, H, W]`` float in 0..1. Output for B = 1: boxes ``[D, 4]`` (x1, y1, x2, y2 in input pixels), scores
    ``[D]`` (-1 where there is no detection) and labels ``[D]``, with D the model's ``detections_per_img``; for a
    larger batch ``[B, D, 4]``, ``[B, D]`` and ``[B, D]``.
    """

    def __init__(self, model: Any, height: int, width: int) -> None:
        super().__init__()
        self.model = model.eval()
        self.image_size = (height, width)
        self.resized, divisor = self.fitted(height, width)
        self.padding = tuple(-side % divisor for side in self.resized)

    counts: CandidateCounts
    """Counts that `forward` runs with; at first those of the user's model."""

    @abstractmethod
    def fewer(self) -> list[CandidateCounts]:
        """Counts below `counts` that are worth a try, largest first."""

    @abstractmethod
    def find(self, features: dict[str, Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes ``[B, D, 4]`` in resized pixels, scores ``[B, D]`` and labels ``[B, D]``, best first."""

    def fitted(self, height: int, width: int) -> tuple[tuple[int, int], int]:
        """Size in pixels that the model resizes an image to, and what the padded sides are multiples of."""
        transform: Any = self.model.transform
        return resized_size(transform, height, width), transform.size_divisible

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detects; see the class for shapes."""
        return self.detect(self.features(image), self.counts)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """Feature maps ``[B, C, h, w]`` by name, of images ``[B, 3, H, W]``."""
        features = self.model.backbone(self._transform(image))
        return {"0": features} if isinstance(features, Tensor) else dict(features)

    def detect(self, features: dict[str, Tensor], counts: CandidateCounts) -> tuple[Tensor, Tensor, Tensor]:
        """Everything behind the feature maps, with ``counts`` boxes; output as of the class."""
        boxes, scores, labels = self.find(features, counts)
        height, width = (size / resized for size, resized in zip(self.image_size, self.resized, strict=True))
        boxes = boxes * torch.tensor([width, height, width, height])
        if scores.shape[0] == 1:
            return boxes[0], scores[0], labels[0]
        return boxes, scores, labels

    def example(self) -> dict[str, Tensor]:
        """The feature maps of a black image, for their shapes."""
        with torch.no_grad():
            return self.features(torch.zeros(1, 3, *self.image_size))

    def keep_anchors(self, generator: nn.Module, maps: list[Tensor]) -> list[int]:
        """Computes the anchors of feature maps like these and keeps them; how many each level has."""
        height, width = (size + extra for size, extra in zip(self.resized, self.padding, strict=True))
        with torch.no_grad():
            anchors = generator(ImageList(torch.zeros(1, 3, height, width), [self.resized]), maps)[0]
        per_location = generator.num_anchors_per_location()  # type: ignore[operator]
        counts = [number * m.shape[-2] * m.shape[-1] for number, m in zip(per_location, maps, strict=True)]
        for level, level_anchors in enumerate(anchors.split(counts)):
            self.register_buffer(f"anchors_{level}", level_anchors.unsqueeze(0), persistent=False)
        return counts

    def anchors(self, level: int) -> Tensor:
        """Anchors of a level, ``[1, A, 4]`` in resized pixels."""
        anchors: Tensor = getattr(self, f"anchors_{level}")
        return anchors

    def _transform(self, image: Tensor) -> Tensor:
        transform = self.model.transform
        mean = torch.as_tensor(transform.image_mean).view(1, 3, 1, 1)
        std = torch.as_tensor(transform.image_std).view(1, 3, 1, 1)
        image = (image - mean) / std
        if self.resized != self.image_size:
            image = functional.interpolate(image, size=self.resized, mode="bilinear", align_corners=False)
        if any(self.padding):
            image = functional.pad(image, (0, self.padding[1], 0, self.padding[0]))
        return image


def resized_size(transform: Any, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels that torchvision's GeneralizedRCNNTransform resizes an image to, before it pads."""
    images, _ = transform([torch.zeros(3, height, width)])
    resized: tuple[int, int] = images.image_sizes[0]
    return resized
