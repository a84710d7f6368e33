"""Accuracy on labelled samples that are not the test split's: what accuracy control decides by."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Variant
from components.core.machine import usable_cores
from components.core.runtimes.interface import load_session
from components.core.tasks.adapter import Dataset, read_split, stack, task_adapter

_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
FEWEST = 8
"""Samples below which an accuracy says too little to decide by."""


@dataclass(frozen=True)
class ControlSplit:
    """Samples of the training split, with their truth, that nothing was calibrated on where there are enough."""

    split: Dataset
    seen: int
    """How many of them were calibrated on too."""
    bundle: Path
    """`fetch`'s folder, which has what reading the samples needs."""

    def first(self, count: int) -> "ControlSplit":
        """The first `count` samples, which are a random choice as all are."""
        return ControlSplit(self.split.subset(range(count)), min(self.seen, count), self.bundle)


def read_control_split(job: Job, bundle: Path, calibrated: Collection[str]) -> ControlSplit | None:
    """Draws `budget.control_images` samples of the training split with the job's seed, unseen ones first.

    Args:
        job: the job.
        bundle: what `fetch` made.
        calibrated: names of the samples that INT8 is calibrated on.

    Returns:
        None where the samples have no truth, so that there is no accuracy.
    """
    train: Dataset = read_split(task_adapter(job, bundle), bundle, "train")
    order = np.random.default_rng([job.budget.seed, 1]).permutation(len(train.samples))
    used = set(calibrated)
    # Calibrated ones come last, so that a part of the split is the unseen part.
    indices = sorted((int(i) for i in order), key=lambda index: train.samples[index].name in used)
    chosen = indices[: job.budget.control_images]
    split = train.subset(chosen)
    if not split.can_judge:
        return None
    return ControlSplit(split, sum(train.samples[index].name in used for index in chosen), bundle)


def measure_accuracy(
    job: Job, runtime: Runtime, file: Path, control: ControlSplit, seconds: float = np.inf
) -> "Scored":
    """The goal's metric on the samples.

    Args:
        job: for the metric, the input's shape and the threads.
        runtime: of the model; an ONNX file meant for TensorRT is computed by ONNX Runtime on the CPU, which rounds at
            its Q/DQ nodes as TensorRT does.
        file: model file.
        control: the samples.
        seconds: look at fewer samples where all would take longer; at least `FEWEST`.

    Raises:
        StepError: the model does not run.
    """
    where = Runtime.ONNXRUNTIME if runtime in _ENGINES else runtime
    variant = Variant(id=file.stem, runtime=where, techniques=[], file=file.name)
    on_cpu = job.model_copy(update={"target": job.target.model_copy(update={"device": "cpu"})})
    session = load_session(variant, file.parent, on_cpu, control.bundle, job.target.threads or usable_cores())
    adapter, count = task_adapter(job, control.bundle), job.target.input_shape[0]
    found: dict[str, Any] = {}
    samples = control.split.samples
    started = time.monotonic()
    for start in range(0, len(samples), count):
        group = samples[start : start + count]
        encoded = [adapter.encode(sample.load()) for sample in group]
        batch = stack([inputs for inputs, _ in encoded], count)
        for sample, (_, context), prediction in zip(group, encoded, session.run(batch), strict=False):
            found[sample.name] = adapter.decode(prediction, context)
        if len(found) >= FEWEST and time.monotonic() - started > seconds:
            break
    looked_at = control if len(found) == len(samples) else control.first(len(found))
    return Scored(adapter.evaluate(found, looked_at.split)[job.goal.metric], looked_at)


@dataclass(frozen=True)
class Scored:
    """An accuracy and the samples that it is of."""

    accuracy: float
    control: ControlSplit
