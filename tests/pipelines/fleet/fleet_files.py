"""Fleets whose jobs name places in S3 that no test opens."""

from pathlib import Path
from typing import Any

import yaml

DEFAULTS: dict[str, Any] = {
    "data": {
        split: {"annotations": f"s3://data/{split}.json", "images": f"s3://data/{split}"} for split in ("train", "test")
    },
    "target": {"runtimes": ["tensorrt"], "input_shape": [1, 3, 320, 320]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.01},
}


def write_fleet(folder: Path, count: int, **changes: Any) -> Path:
    """Writes `fleet.yaml` and a job file a model; `changes` replace fields of the fleet."""
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        job = {
            "name": f"model-{number:03d}",
            "model": {"onnx": f"s3://models/team-{number % 7}/model-{number:03d}.onnx"},
        }
        (folder / "jobs" / f"{number:03d}.yaml").write_text(yaml.safe_dump(job))
    path = folder / "fleet.yaml"
    fields = {"name": "detectors", "jobs": ["jobs/*.yaml"], "defaults": DEFAULTS, "parallelism": 3}
    path.write_text(yaml.safe_dump(fields | changes))
    return path
