"""Trains the samples' baselines: the slow, accurate models that the ladder starts from.

`trees` was trained once with this and its checkpoint ships with the project; `bccd` is trained by whoever has the data.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from components.core.files import sha256_file
from components.core.tasks.detection import Detections, DetectionSplit, drop_padding, evaluate, fit, read_split, unfit
from pipelines.samples.compact_faster_rcnn import STRIDE_32, compact_faster_rcnn
from pipelines.samples.training import Recipe, Sample, train_detector, write_provenance
from pipelines.samples.trees import (
    MIN_BOX,
    TEST_IMAGE,
    TRAIN_IMAGE,
    WINDOW,
    fetch_backbone_weights,
    prepare_trees,
    read_boxes,
)

TREES_RECIPE = Recipe(iterations=1200, crop=256, min_side=MIN_BOX)
BCCD_RECIPE = Recipe(iterations=700, crop=320, min_scale=0.5, max_scale=0.9, min_side=8)
BCCD_IMAGE_SIZE = 320
TRAINING_HEADS: dict[str, Any] = {"rpn_batch_size_per_image": 256, "box_batch_size_per_image": 128}
Log = Callable[[str], None]


def train_trees(data: Path, checkpoint: Path, log: Log, recipe: Recipe = TREES_RECIPE) -> dict[str, float]:
    """Trains the tree detector on the one image and returns its accuracy (0..1) on windows of the other.

    Args:
        data: folder of `prepare_trees`; filled when it is empty.
        checkpoint: `.safetensors` file to write; its provenance goes beside it, as `.json`.
        log: takes a line at a time.
        recipe: how to train.
    """
    prepare_trees(data)
    source = data / "source"
    image = source / f"{TRAIN_IMAGE}.png"
    boxes = torch.tensor(read_boxes(source / f"{TRAIN_IMAGE}.xml"), dtype=torch.float32)
    samples = [(_pixels(image), boxes, torch.ones(len(boxes), dtype=torch.int64))]
    test = read_split(data / "test.json", data / "images")
    facts = {"data": {"train": TRAIN_IMAGE, "test": TEST_IMAGE, "train_sha256": sha256_file(image)}}
    return _train(samples, 2, WINDOW, data, test, (WINDOW, WINDOW), checkpoint, log, recipe, facts)


def train_bccd(
    data: Path, backbone: Path, checkpoint: Path, log: Log, recipe: Recipe = BCCD_RECIPE
) -> dict[str, float]:
    """Trains the blood-cell detector on BCCD's own train split and returns its accuracy (0..1) on the test split.

    Args:
        data: folder with `train.json`, `test.json` and `images/`.
        backbone: folder that the backbone's ImageNet weights are downloaded to.
        checkpoint: as of `train_trees`.
        log: as of `train_trees`.
        recipe: as of `train_trees`.
    """
    split = read_split(data / "train.json", data / "images")
    samples = samples_of(split)
    test = read_split(data / "test.json", data / "images")
    facts = {"data": {"train": "BCCD train.json", "train_sha256": sha256_file(data / "train.json")}}
    classes = len(split.categories) + 1
    return _train(samples, classes, BCCD_IMAGE_SIZE, backbone, test, (480, 640), checkpoint, log, recipe, facts)


def _train(
    samples: list[Sample],
    classes: int,
    image_size: int,
    backbone: Path,
    test: DetectionSplit,
    test_shape: tuple[int, int],
    checkpoint: Path,
    log: Log,
    recipe: Recipe,
    facts: dict[str, Any],
) -> dict[str, float]:
    from safetensors.torch import save_file

    torch.manual_seed(recipe.seed)
    model = compact_faster_rcnn(classes, image_size=recipe.crop, **TRAINING_HEADS)
    load_backbone(model, fetch_backbone_weights(backbone))
    started = time.monotonic()
    weights = train_detector(model, samples, recipe, log).state_dict()
    minutes = (time.monotonic() - started) / 60
    trained = compact_faster_rcnn(classes, image_size=image_size)
    trained.load_state_dict(weights)
    accuracy = measure(trained.eval(), test, test_shape)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_name(checkpoint.name + ".partial")
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, partial)
    partial.replace(checkpoint)
    write_provenance(
        checkpoint.with_suffix(".json"),
        recipe,
        accuracy_on_test=accuracy,
        minutes=round(minutes, 1),
        threads=torch.get_num_threads(),
        sha256=sha256_file(checkpoint),
        parameters=sum(parameter.numel() for parameter in trained.parameters()),
        **facts,
    )
    return accuracy


def load_backbone(model: torch.nn.Module, weights: Path) -> None:
    """Puts torchvision's ImageNet weights into the model's MobileNetV2, as far as it reaches."""
    state = torch.load(weights, weights_only=True)
    body = {
        name.removeprefix("features."): value
        for name, value in state.items()
        if name.startswith("features.") and int(name.split(".")[1]) <= STRIDE_32
    }
    model.get_submodule("backbone.body").load_state_dict(body)


def measure(model: torch.nn.Module, split: DetectionSplit, shape: tuple[int, int]) -> dict[str, float]:
    """mAP50 and mAP (0..1) of a torchvision detector on images fitted into `shape` (height, width)."""
    found: dict[str, Detections] = {}
    with torch.inference_mode():
        for image in split.images:
            batch, scale = fit(image.load(), *shape)
            outputs = model([torch.from_numpy(batch[0])])[0]
            kept = drop_padding(*(outputs[name].numpy() for name in ("boxes", "scores", "labels")))
            found[image.file_name] = Detections(unfit(kept.boxes, scale), kept.scores, kept.labels)
    return {str(metric): round(value, 4) for metric, value in evaluate(found, split).items()}


def samples_of(split: DetectionSplit) -> list[Sample]:
    """The images of a split with their boxes and labels, all in memory, as `train_detector` takes them."""
    boxes: dict[int, list[list[float]]] = {image.id: [] for image in split.images}
    labels: dict[int, list[int]] = {image.id: [] for image in split.images}
    for annotation in split.document["annotations"]:
        x, y, width, height = annotation["bbox"]
        boxes[annotation["image_id"]].append([x, y, x + width, y + height])
        labels[annotation["image_id"]].append(annotation["category_id"])
    return [
        (_pixels(image.path), torch.tensor(boxes[image.id]).reshape(-1, 4), torch.tensor(labels[image.id]).long())
        for image in split.images
    ]


def _pixels(path: Path) -> torch.Tensor:
    from components.core.tasks.detection import load_image

    return torch.from_numpy(load_image(path).copy()).permute(2, 0, 1).contiguous()
