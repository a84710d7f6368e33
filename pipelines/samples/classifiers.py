"""Trains the classifier of a sample from scratch, with the loop and the tasks of the ladder's own training rungs."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from components.core.contracts.job import Job, Training
from components.core.files import sha256_file, write_json_atomic
from components.core.job_file import read_fields, read_text
from components.core.machine import describe
from components.core.models import call_factory
from components.core.tasks.adapter import read_split, task_adapter
from components.core.training.bundle import write_weights
from components.core.training.labelled import accuracy_of
from components.core.training.loop import train
from components.core.training.task import training_task
from components.fetch.run import run_fetch

EXAMPLES = Path(__file__).parent.parent / "examples"
Log = Callable[[str], None]


def train_classifier(
    job_file: Path, data: Path, settings: Training, checkpoint: Path, log: Log, seed: int = 7
) -> dict[str, float]:
    """Trains the model that a sample's job names and returns its accuracies (0..1) on the test split.

    Args:
        job_file: of a classifier made by a factory; its weights need not be there.
        data: folder of the sample, in the place of the job's own.
        settings: how to train.
        checkpoint: `.safetensors` file to write; its provenance goes beside it, as `.json`.
        log: takes a line at a time.
        seed: of the first weights and everything drawn.
    """
    torch.manual_seed(seed)
    fields = _moved(read_fields(read_text(job_file), job_file.name), job_file.stem, data)
    with tempfile.TemporaryDirectory(prefix="hasten-") as temporary:
        folder = Path(temporary)
        model = fields["model"]
        module = call_factory(model["factory"], model.get("kwargs", {}))
        write_weights(module, folder / "first.safetensors")
        fields["model"] = model | {"weights": str(folder / "first.safetensors")}
        job = Job.model_validate(fields).model_copy(update={"training": settings})
        run_fetch(job, folder / "bundle")
        task = training_task(job, folder / "bundle")
        log(f"training on {task.trained_on} samples, {settings.epochs} epochs")
        started = time.monotonic()
        done = train(module, task.loss, task.loader, job.training, seed=seed)
        minutes = (time.monotonic() - started) / 60
        adapter = task_adapter(job, folder / "bundle")
        test = read_split(adapter, folder / "bundle", "test")
        accuracy = {str(name): round(value, 4) for name, value in accuracy_of(module, adapter, test).items()}
        card = json.loads((folder / "bundle" / "fetch_card.json").read_text())
        write_weights(module, checkpoint)
    write_json_atomic(
        checkpoint.with_suffix(".json"),
        {
            "settings": settings.model_dump(mode="json"),
            "seed": seed,
            "accuracy_on_test": accuracy,
            "minutes": round(minutes, 1),
            "steps": done.steps,
            "sha256": sha256_file(checkpoint),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "data": {name: card[name]["images_sha256"] for name in ("train", "test")},
            "environment": describe(),
        },
    )
    return accuracy


def _moved(value: Any, name: str, data: Path) -> Any:
    """The fields of an example job with the sample's folder in the place of the usual one."""
    usual = f"../../.hasten/samples/{name}"
    if isinstance(value, dict):
        return {key: _moved(inner, name, data) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith(usual):
        return str(data.resolve()) + value.removeprefix(usual)
    return value
