"""Detection, as training sees it: images fitted into the network's input, torchvision's own losses, mAP of a module."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from components.core.contracts.job import Job, Metric
from components.core.errors import StepError
from components.core.tasks.detection import (
    Detections,
    DetectionSplit,
    SplitImage,
    drop_padding,
    evaluate,
    fit,
    read_split,
    unfit,
)
from components.core.training.data import Loader, Shuffled, held_back
from components.core.training.task import TrainingTask

Sample = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Image [3, H, W] in 0..1, and its target: boxes [N, 4] as x1 y1 x2 y2 in pixels of it, labels [N]."""
Batch = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]


def detection_loss(module: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """The losses that a torchvision-like detector computes itself in training mode.

    Raises:
        StepError: the module returns something else.
    """
    images, targets = batch
    losses = module(images, targets)
    if not isinstance(losses, dict) or not all(isinstance(value, torch.Tensor) for value in losses.values()):
        raise StepError(
            f"in training mode the model returned a {type(losses).__name__}; expected a dict of losses, as "
            "torchvision's detectors return when they are called with images and targets"
        )
    return losses


def detection_loader(
    split: DetectionSplit, shape: tuple[int, int], batch: int, seed: int, *, flip: bool, workers: int = 0
) -> Loader:
    """Batches of a split: every image fitted into the network's input, half of them mirrored.

    Args:
        split: what to train on.
        shape: height and width of the network's input in pixels; what the deployed model will see.
        batch: images a step, over all processes together.
        seed: of order and mirroring.
        flip: whether to mirror.
        workers: processes that read ahead.
    """
    truth = truth_of(split)

    def make(index: int, chooser: random.Random) -> Sample:
        image = split.images[index]
        return read_sample(image, truth[image.id], shape, mirrored=flip and chooser.random() < 0.5)

    def loader(share: Any) -> Shuffled:
        return Shuffled(len(split.images), make, _collate, batch, seed, workers, share)

    return loader


def read_sample(
    image: SplitImage, truth: Sequence[tuple[list[float], int]], shape: tuple[int, int], *, mirrored: bool
) -> Sample:
    """An image and its boxes, fitted into `shape` (height, width) and perhaps mirrored."""
    pixels, (horizontal, vertical) = fit(image.load(), *shape)
    tensor = torch.from_numpy(pixels[0])
    boxes = torch.tensor([box for box, _ in truth], dtype=torch.float32).reshape(-1, 4)
    boxes *= torch.tensor([horizontal, vertical, horizontal, vertical])
    if mirrored:
        tensor = tensor.flip(-1)
        boxes = torch.stack([shape[1] - boxes[:, 2], boxes[:, 1], shape[1] - boxes[:, 0], boxes[:, 3]], dim=1)
    labels = torch.tensor([label for _, label in truth], dtype=torch.int64)
    return tensor, {"boxes": boxes, "labels": labels}


def accuracy_of(
    module: torch.nn.Module, split: DetectionSplit, shape: tuple[int, int], device: str = "cpu"
) -> dict[Metric, float] | None:
    """mAP50 and mAP (0..1) of a torchvision-like detector in FP32; None if the split has no boxes to find.

    Raises:
        StepError: the module returns NaN, or nothing that looks like detections.
    """
    if not split.can_judge:
        return None
    module.to(device).eval()
    found: dict[str, Detections] = {}
    with torch.inference_mode():
        for image in split.images:
            pixels, scale = fit(image.load(), *shape)
            answer = module([torch.from_numpy(pixels[0]).to(device)])[0]
            kept = drop_padding(*(answer[name].cpu().numpy() for name in ("boxes", "scores", "labels")))
            found[image.file_name] = Detections(unfit(kept.boxes, scale), kept.scores, kept.labels)
    return evaluate(found, split)


def truth_of(split: DetectionSplit) -> dict[int, list[tuple[list[float], int]]]:
    """Corners and category of every box that is one (COCO's crowds are not), by image."""
    truth: dict[int, list[tuple[list[float], int]]] = {image.id: [] for image in split.images}
    for record in split.document["annotations"]:
        x, y, width, height = record["bbox"]
        if not record["iscrowd"] and width > 0 and height > 0:
            truth[record["image_id"]].append(([x, y, x + width, y + height], int(record["category_id"])))
    return truth


def _collate(samples: list[Sample]) -> Batch:
    return [image for image, _ in samples], [target for _, target in samples]


def detection_task(job: Job, bundle: Path) -> TrainingTask:
    """Detection on the training split of a bundle; see `training_task`."""
    folder = bundle / "data" / "train"
    split = read_split(folder / "annotations.json", folder / "images")
    names = [image.file_name for image in split.images]
    chosen, back = held_back(names, job.training.validation, job.budget.seed)
    trained, validation = split.subset(chosen), split.subset(back)
    shape = (job.target.input_shape[2], job.target.input_shape[3])

    def judge(module: torch.nn.Module, device: str) -> dict[str, float] | None:
        accuracies = accuracy_of(module, validation, shape, device)
        return {str(metric): round(value, 4) for metric, value in accuracies.items()} if accuracies else None

    return TrainingTask(
        loss=detection_loss,
        loader=detection_loader(
            trained,
            shape,
            job.training.batch,
            job.budget.seed,
            flip=job.training.flip,
            workers=job.training.workers,
        ),
        evaluate=judge,
        trained_on=len(chosen),
        held_back=len(back),
    )
