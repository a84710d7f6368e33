"""A job so small that a whole run takes seconds: a random detector, judged by what it finds itself in eager mode."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from fixtures.detectors import SIDE, tiny_faster_rcnn, write_coco

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
FACTORY = "fixtures.detectors:tiny_faster_rcnn"
_TRUE_BOXES = 6


def make_tiny_job(folder: Path, **changes: Any) -> Path:
    """Writes `job.yaml`, the weights and two splits into `folder`; `changes` replace whole top-level fields."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_faster_rcnn()
    torch.save(model.state_dict(), folder / "weights.pt")
    for split, count in (("train", 3), ("test", 2)):
        write_coco(folder / split, count)
        _relabel(folder / split, model)
    fields: dict[str, Any] = {
        "name": "tiny",
        "model": {"factory": FACTORY, "weights": "weights.pt"},
        "data": {
            split: {"annotations": f"{split}/annotations.json", "images": f"{split}/images"}
            for split in ("train", "test")
        },
        "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, SIDE, SIDE], "threads": 1},
        # INT8 meets it and the untouched model does not, however busy the machine is.
        "goal": {"max_size": "200 kB", "max_accuracy_drop": 1.0},
        "budget": {"rounds": 3, "round_time": "0.05 s"},
        "publish": {"to": "file://published"},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(fields | changes))
    return path


def _relabel(split: Path, model: torch.nn.Module) -> None:
    """Makes the model's own best detections the truth, so that its accuracy is high and a drop can be seen."""
    document = json.loads((split / "annotations.json").read_text())
    annotations: list[dict[str, Any]] = []
    for image in document["images"]:
        pixels = np.asarray(Image.open(split / "images" / image["file_name"]), np.float32) / 255
        with torch.no_grad():
            found = model([torch.from_numpy(pixels).permute(2, 0, 1)])[0]
        for x1, y1, x2, y2 in found["boxes"][:_TRUE_BOXES].tolist():
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "category_id": 1}
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"]} | box)
    (split / "annotations.json").write_text(json.dumps(document | {"annotations": annotations}))


def environment(cache: Path) -> dict[str, str]:
    """What `hasten` is started with: the tests' modules can be factories, the cache is the test's own."""
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "HASTEN_CACHE": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def command(*arguments: str | Path) -> list[str]:
    """The command line of `hasten`."""
    return [sys.executable, "-m", "pipelines.cli.main", *(str(argument) for argument in arguments)]


def hasten(cache: Path, *arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs `hasten` to its end."""
    return subprocess.run(
        command(*arguments), env=environment(cache), cwd=cwd, capture_output=True, text=True, timeout=900
    )
