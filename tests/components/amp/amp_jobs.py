"""A tiny detector's job with a bundle, for the tests of the rung."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from components.core.contracts.job import Job
from components.fetch.run import run_fetch
from fixtures.detectors import SIDE, tiny_faster_rcnn, write_coco

FACTORY = "fixtures.detectors:tiny_faster_rcnn"
TRAIN = 7


def make_bundle(folder: Path, factory: str = FACTORY, **training: Any) -> tuple[Job, Path]:
    """A job in `folder` and the bundle that `fetch` makes of it; `training` are settings. Made once."""
    made = folder.exists()
    if not made:
        folder.mkdir(parents=True)
        torch.save(tiny_faster_rcnn().state_dict(), folder / "weights.pt")
        for split, count in (("train", TRAIN), ("test", 2)):
            write_coco(folder / split, count)
    job = Job.model_validate(
        {
            "name": "tiny",
            "model": {"factory": factory, "weights": str(folder / "weights.pt")},
            "data": {
                split: {
                    "annotations": str(folder / split / "annotations.json"),
                    "images": str(folder / split / "images"),
                }
                for split in ("train", "test")
            },
            "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, SIDE, SIDE]},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 1.0},
            "training": {"epochs": 2, "batch": 2, "learning_rate": 0.001, "validation": 0.3} | training,
        }
    )
    if not made:
        run_fetch(job, folder / "bundle")
    return job, folder / "bundle"


def silent() -> nn.Module:
    """A model with the tiny detector's weights that has no losses to give."""
    model = tiny_faster_rcnn()

    def forward(_images: Any, _targets: Any = None) -> list[Any]:
        return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}]

    model.forward = forward  # type: ignore[method-assign]
    return model


def broken() -> nn.Module:
    """A model that fails in training and not before."""
    model = tiny_faster_rcnn()
    model.rpn.box_coder.encode = None  # type: ignore[method-assign, assignment]
    return model


def frozen() -> nn.Module:
    """A model without anything to train."""
    return tiny_faster_rcnn().requires_grad_(False)


def paint_boxes(bundle: Path) -> None:
    """Makes what is to be found easy to see: the boxes of the training split, white on dark pictures."""
    folder = bundle / "data" / "train"
    document = json.loads((folder / "annotations.json").read_text())
    for record in document["images"]:
        path = folder / "images" / record["file_name"]
        pixels = np.asarray(Image.open(path)) // 4
        for annotation in document["annotations"]:
            if annotation["image_id"] == record["id"]:
                x, y, width, height = map(int, annotation["bbox"])
                pixels[y : y + height, x : x + width] = 255
        path.unlink()  # it may be a link
        Image.fromarray(pixels).save(path)
