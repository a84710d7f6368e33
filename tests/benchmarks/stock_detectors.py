"""The five torchvision detectors that surgery is judged by, briefly trained so that their scores mean something.

``python tests/benchmarks/stock_detectors.py --data FOLDER --out FOLDER [NAME...]`` trains those whose weights are not
there yet. FOLDER of the data has ``train.json`` (COCO) and ``images/``.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torchvision.models import detection

from components.core.tasks.detection import read_split
from pipelines.samples.baselines import samples_of
from pipelines.samples.training import Recipe, train_detector, write_provenance

IMAGE_SIZE = (480, 640)
"""Height and width in pixels of the models' input; each resizes it inside, to 320 pixels on the short side."""
_SIDES = {"min_size": 320, "max_size": 640}
FACTORIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        detection.fasterrcnn_mobilenet_v3_large_320_fpn,
        {"box_score_thresh": 0.05},
    ),
    "fasterrcnn_resnet50_fpn": (detection.fasterrcnn_resnet50_fpn, _SIDES),
    "retinanet_resnet50_fpn": (detection.retinanet_resnet50_fpn, _SIDES),
    "fcos_resnet50_fpn": (detection.fcos_resnet50_fpn, _SIDES),
    "ssdlite320_mobilenet_v3_large": (detection.ssdlite320_mobilenet_v3_large, {"score_thresh": 0.05}),
}
RECIPE = Recipe(iterations=200, crop=320, batch=4, warmup=20, ema_decay=0.95, min_scale=0.5, max_scale=0.9, min_side=8)
"""Enough to find most cells; not to be accurate."""
LONGER = {"ssdlite320_mobilenet_v3_large": replace(RECIPE, iterations=2000, batch=8, ema_decay=0.99)}
"""Recipes of models that learn slowly without a pretrained backbone."""


def detector(name: str, classes: int) -> torch.nn.Module:
    """An untrained detector for `classes` classes, the background included; nothing is downloaded."""
    factory, options = FACTORIES[name]
    model: torch.nn.Module = factory(weights=None, weights_backbone=None, num_classes=classes, **options)
    return model


def trained(name: str, classes: int, folder: Path) -> torch.nn.Module:
    """A detector with the weights that `train` put into `folder`."""
    from safetensors.torch import load_file

    model = detector(name, classes)
    model.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return model.eval()


def train(name: str, data: Path, folder: Path, log: Callable[[str], None]) -> Path:
    """Trains one detector on the data's train split; returns the weights' file, which is kept if it is there."""
    from safetensors.torch import save_file

    weights = folder / f"{name}.safetensors"
    if weights.exists():
        return weights
    split, recipe = read_split(data / "train.json", data / "images"), LONGER.get(name, RECIPE)
    torch.manual_seed(recipe.seed)
    model = train_detector(detector(name, len(split.categories) + 1), samples_of(split), recipe, log)
    folder.mkdir(parents=True, exist_ok=True)
    partial = weights.with_suffix(".partial")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, partial)
    partial.rename(weights)
    write_provenance(weights.with_suffix(".json"), recipe, model=name, classes=len(split.categories) + 1)
    return weights


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(FACTORIES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for chosen in arguments.names:
        print(train(chosen, arguments.data, arguments.out, lambda line, name=chosen: print(name, line, flush=True)))
