"""Detectors as students: their own losses on the labels or on what the teachers found, and hints.

A detector of any family computes its losses itself, from boxes and labels. So the teachers speak through these: each
time an image is seen, its targets are its labels or the teachers' fused detections, drawn in the ratio of the job's
weights; and of those detections each counts as often as the teachers are sure of it (`pseudo.py`).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from components.core.contracts.job import Distill
from components.core.errors import StepError
from components.core.tasks.detection import Detections, SplitImage
from components.core.training.data import Loader, Share, Shuffled
from components.core.training.detection import detection_loss, read_sample
from components.core.training.loop import Loss
from components.distill.answers import Answers, sample_digest
from components.distill.fusion import fuse
from components.distill.labelled import feature_reader, hint_losses
from components.distill.pseudo import Truth, drawn

Batch = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]], list[torch.Tensor]]
"""Images [3, H, W]; targets; features, one for each hint."""


@dataclass(frozen=True)
class TaughtImages:
    """Images with what is known of them."""

    images: Sequence[SplitImage]
    truth: Sequence[Truth | None]
    """In pixels of the image; None where nobody labelled it."""
    epoch: Sequence[int]
    """Indices of the images of an epoch."""
    answers: Sequence[Answers]
    """Of each teacher; boxes in pixels of the network's input."""


def invoke(student: nn.Module, images: Any, targets: Any = None) -> Any:
    """The detector's losses in training mode; in eval mode what it finds."""
    return detection_loss(student, (images, targets)) if student.training else student(images)


def detection_distillation(settings: Distill) -> Loss:
    """The loss of a student that detects: its own losses on the targets that were drawn, and the hints."""

    def loss(module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        images, targets, features = batch
        losses, own = module(images, targets)
        if not isinstance(losses, dict):
            raise StepError("the student is not in training mode")
        return {**losses, **hint_losses(settings, own, features)}

    return loss


def detection_loader(
    taught: TaughtImages,
    settings: Distill,
    shape: tuple[int, int],
    batch: int,
    seed: int,
    *,
    flip: bool,
    workers: int = 0,
) -> Loader:
    """Batches of images, each with labels or with what the teachers found.

    Args:
        taught: the images.
        settings: weights, least score, hints.
        shape: height and width of the network's input in pixels.
        batch: images a step, over all processes together.
        seed: of order, mirroring and what is drawn.
        flip: whether to mirror half of the images.
        workers: processes that read ahead.
    """
    digests = [sample_digest(image) for image in taught.images]
    features = feature_reader(settings)
    share = settings.soft / (settings.soft + settings.hard) if settings.soft else 0.0

    def make(place: int, chooser: random.Random) -> Any:
        index = taught.epoch[place]
        image, truth = taught.images[index], taught.truth[index]
        mirrored = flip and chooser.random() < 0.5
        from_teachers = truth is None or chooser.random() < share
        answers = [teacher.of(digests[index]) for teacher in taught.answers]
        tensor, target = read_sample(image, truth or [], shape, mirrored=mirrored)
        if from_teachers:
            found = fuse([_detections(answer) for answer in answers], settings.fusion_iou)
            target = _target(drawn(found, settings.min_score, chooser), shape[1], mirrored=mirrored)
        hints = [feature.flip(-1) if mirrored and feature.ndim == 3 else feature for feature in features(answers)]
        return tensor, target, hints

    def loader(share: Share) -> Shuffled:
        return Shuffled(len(taught.epoch), make, collate, batch, seed, workers, share)

    return loader


def collate(samples: Sequence[Any]) -> Batch:
    """Samples as one batch."""
    images, targets = [one[0] for one in samples], [one[1] for one in samples]
    return images, targets, [torch.stack(list(each)) for each in zip(*(one[2] for one in samples), strict=True)]


def _detections(answer: dict[str, Any]) -> Detections:
    return Detections(answer["boxes"], answer["scores"], answer["labels"])


def _target(truth: Truth, width: int, *, mirrored: bool) -> dict[str, torch.Tensor]:
    boxes = torch.tensor([box for box, _ in truth], dtype=torch.float32).reshape(-1, 4)
    if mirrored:
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
    return {"boxes": boxes, "labels": torch.tensor([label for _, label in truth], dtype=torch.int64)}
