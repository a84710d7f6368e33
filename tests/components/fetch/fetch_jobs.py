"""Small jobs with a model file and real images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core.contracts.job import Job

COLOURS = np.random.default_rng(5)


def write_split(folder: Path, name: str, count: int, size: tuple[int, int] = (64, 48)) -> None:
    """Writes `count` noise images below `images/<name>/` and `<name>.json`, with two boxes each."""
    images, annotations = [], []
    for number in range(1, count + 1):
        file_name = f"{name}/{number}.png"
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        pixels = COLOURS.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / file_name)
        images.append({"id": number, "file_name": file_name, "width": size[0], "height": size[1]})
        for left in (2, 20):
            box = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": [left, 5, 16.5, 20]}
            annotations.append(box)
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}
    (folder / f"{name}.json").write_text(json.dumps(document))


def write_source(folder: Path) -> Path:
    """Fills a folder with `weights.safetensors`, `train.json` (3 images), `test.json` (2) and `images/`."""
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights" * 1000)
    write_split(folder, "train", 3)
    write_split(folder, "test", 2)
    (folder / "images" / "unused.png").write_bytes(b"not named in the annotations")
    return folder


def make_job(root: str, model: dict[str, Any] | None = None, **data: Any) -> Job:
    """A job whose files are below `root`, a path or URI."""
    return Job.model_validate(
        {
            "name": "trees",
            "model": model or {"factory": "user_models:detector", "weights": f"{root}/weights.safetensors"},
            "data": {
                "train": {"annotations": f"{root}/train.json", "images": f"{root}/images"},
                "test": {"annotations": f"{root}/test.json", "images": f"{root}/images"},
                **data,
            },
            "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 64, 64]},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
        }
    )


def edit(annotations: Path, how: Callable[[dict[str, Any]], None]) -> None:
    """Changes an annotation file in place."""
    document = json.loads(annotations.read_text())
    how(document)
    annotations.write_text(json.dumps(document))


def files_below(folder: Path) -> set[str]:
    """Relative paths of all files, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
