"""Trains the compact Faster R-CNN of the samples: the page that made the checkpoints that ship or are cached.

Not a rung of the ladder: it makes the *slow* model that the ladder starts from.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Image [3, H, W] in 0..1, boxes [N, 4] as x1 y1 x2 y2 in pixels, labels [N]."""


@dataclass(frozen=True)
class Recipe:
    """How a sample's baseline is trained; recorded beside its checkpoint."""

    iterations: int
    crop: int
    """Side of the square training crop in pixels."""
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    ema_decay: float = 0.998
    min_scale: float = 0.7
    max_scale: float = 1.5
    min_side: float = 10.0
    """Boxes with a shorter side, after cropping, are not trained on."""
    seed: int = 7


def train_detector(
    model: torch.nn.Module,
    samples: list[Sample],
    recipe: Recipe,
    log: Callable[[str], None],
) -> torch.nn.Module:
    """Trains ``model`` in bfloat16 autocast on random crops; returns the moving average of its weights."""
    torch.manual_seed(recipe.seed)
    batches = random_crops(samples, recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, recipe))
    average = AveragedModel(
        model,
        multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    started, window = time.monotonic(), []
    model.train()
    for step in range(1, recipe.iterations + 1):
        images, targets = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(images, targets)
            loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        window.append(loss.item())
        if step % 50 == 0 or step == recipe.iterations:
            minutes = (time.monotonic() - started) / 60
            left = minutes / step * (recipe.iterations - step)
            log(f"step {step}/{recipe.iterations} loss {np.mean(window):.3f} {minutes:.1f} min, {left:.1f} min left")
            window.clear()
    return average.module


def warmup_cosine(step: int, recipe: Recipe) -> float:
    """Factor of the learning rate at ``step``: linear warm-up, then a cosine down to 1%."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(recipe.iterations - recipe.warmup, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def random_crops(samples: list[Sample], recipe: Recipe) -> Iterator[tuple[list[torch.Tensor], list[dict[str, Any]]]]:
    """Endless batches of square crops: random place, scale, flip, quarter turn, brightness, contrast and colour."""
    chooser = random.Random(recipe.seed)  # noqa: S311
    areas = [image.shape[1] * image.shape[2] for image, _, _ in samples]
    while True:
        images: list[torch.Tensor] = []
        targets: list[dict[str, Any]] = []
        while len(images) < recipe.batch:
            image, boxes, labels = chooser.choices(samples, areas)[0]
            image, boxes, labels = _crop(image, boxes, labels, recipe, chooser)
            if len(boxes) == 0 and chooser.random() < 0.8:
                continue
            image, boxes = _turn(image, boxes, chooser)
            images.append(_recolour(image, chooser))
            targets.append({"boxes": boxes, "labels": labels})
        yield images, targets


def _crop(
    image: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, recipe: Recipe, chooser: random.Random
) -> Sample:
    height, width = image.shape[1:]
    scale = math.exp(chooser.uniform(math.log(recipe.min_scale), math.log(recipe.max_scale)))
    side = min(round(recipe.crop / scale), height, width)
    left, top = chooser.randint(0, width - side), chooser.randint(0, height - side)
    patch = image[:, top : top + side, left : left + side].float().div(255).unsqueeze(0)
    patch = torch.nn.functional.interpolate(patch, size=(recipe.crop,) * 2, mode="bilinear", antialias=True)[0]
    offset = torch.tensor([left, top, left, top])
    moved = (boxes - offset).clamp(0, side)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    visible = (moved[:, 2:] - moved[:, :2]).prod(1)
    moved = moved * (recipe.crop / side)
    keep = (visible > 0.4 * area) & ((moved[:, 2:] - moved[:, :2]).amin(1) >= recipe.min_side)
    return patch, moved[keep], labels[keep]


def _turn(image: torch.Tensor, boxes: torch.Tensor, chooser: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    side = image.shape[-1]
    if chooser.random() < 0.5:
        image = image.flip(-1)
        boxes = torch.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)
    for _ in range(chooser.randrange(4)):
        image = image.rot90(1, (-2, -1))
        boxes = torch.stack([boxes[:, 1], side - boxes[:, 2], boxes[:, 3], side - boxes[:, 0]], 1)
    return image, boxes


def _recolour(image: torch.Tensor, chooser: random.Random) -> torch.Tensor:
    mean = image.mean((1, 2), keepdim=True)
    image = (image - mean) * chooser.uniform(0.7, 1.3) + mean * chooser.uniform(0.7, 1.3)
    tint = torch.tensor([chooser.uniform(0.9, 1.1) for _ in range(3)]).view(3, 1, 1)
    return (image * tint).clamp(0, 1)


def write_provenance(path: Path, recipe: Recipe, **facts: Any) -> None:
    """Writes recipe, versions and ``facts`` as JSON, so that a checkpoint can be traced and made again."""
    import torchvision

    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    path.write_text(json.dumps({"recipe": asdict(recipe), "versions": versions} | facts, indent=2) + "\n")
