"""Accuracy on labelled images that are not the test split's: what accuracy control decides by."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Variant
from components.core.machine import usable_cores
from components.core.runtimes.interface import load_session
from components.core.tasks.detection import (
    Detections,
    DetectionSplit,
    SplitImage,
    evaluate,
    fit,
    in_batches,
    read_split,
    unfit,
)

_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
FEWEST = 8
"""Images below which an accuracy says too little to decide by."""


@dataclass(frozen=True)
class ControlSplit:
    """Images of the training split, with their boxes, that nothing was calibrated on where there are enough."""

    split: DetectionSplit
    seen: int
    """How many of them were calibrated on too."""

    def first(self, count: int) -> "ControlSplit":
        """The first `count` images, which are a random choice as all are."""
        return ControlSplit(_only(self.split, self.split.images[:count]), min(self.seen, count))


def read_control_split(job: Job, bundle: Path, calibrated: Collection[str]) -> ControlSplit | None:
    """Draws `budget.control_images` images of the training split with the job's seed, unseen ones first.

    Args:
        job: the job.
        bundle: what `fetch` made.
        calibrated: names of the images that INT8 is calibrated on.

    Returns:
        None where the split has no boxes, so that there is no accuracy.
    """
    train = read_split(bundle / "data" / "train" / "annotations.json", bundle / "data" / "train" / "images")
    order = np.random.default_rng([job.budget.seed, 1]).permutation(len(train.images))
    used = set(calibrated)
    images = [train.images[int(i)] for i in order]
    images = [one for one in images if one.file_name not in used] + [one for one in images if one.file_name in used]
    chosen = images[: job.budget.control_images]
    # Calibrated ones come last, so that a part of the split is the unseen part.
    split = _only(train, chosen)
    if not any(not record["iscrowd"] for record in split.document["annotations"]):
        return None
    return ControlSplit(split, sum(one.file_name in used for one in chosen))


def measure_accuracy(
    job: Job, runtime: Runtime, file: Path, control: ControlSplit, seconds: float = np.inf
) -> "Scored":
    """The goal's metric on the images.

    Args:
        job: for the metric, the input's shape and the threads.
        runtime: of the model; an ONNX file meant for TensorRT is computed by ONNX Runtime on the CPU, which rounds at
            its Q/DQ nodes as TensorRT does.
        file: model file.
        control: the images.
        seconds: look at fewer images where all would take longer; at least `FEWEST`.

    Raises:
        StepError: the model does not run.
    """
    where = Runtime.ONNXRUNTIME if runtime in _ENGINES else runtime
    variant = Variant(id=file.stem, runtime=where, techniques=[], file=file.name)
    on_cpu = job.model_copy(update={"target": job.target.model_copy(update={"device": "cpu"})})
    session = load_session(variant, file.parent, on_cpu, None, job.target.threads or usable_cores())
    count, _, height, width = job.target.input_shape
    found: dict[str, Detections] = {}
    images = control.split.images
    started = time.monotonic()
    for start in range(0, len(images), count):
        group = images[start : start + count]
        fitted = [fit(image.load(), height, width) for image in group]
        (batch,) = in_batches([one for one, _ in fitted], count)
        for image, (_, scale), detections in zip(group, fitted, session.run(batch), strict=False):
            found[image.file_name] = detections._replace(boxes=unfit(detections.boxes, scale))
        if len(found) >= FEWEST and time.monotonic() - started > seconds:
            break
    looked_at = control if len(found) == len(images) else control.first(len(found))
    return Scored(evaluate(found, looked_at.split)[job.goal.metric], looked_at)


@dataclass(frozen=True)
class Scored:
    """An accuracy and the images that it is of."""

    accuracy: float
    control: ControlSplit


def _only(split: DetectionSplit, images: Collection[SplitImage]) -> DetectionSplit:
    ids = {image.id for image in images}
    document = dict(split.document)
    document["images"] = [record for record in document["images"] if int(record["id"]) in ids]
    document["annotations"] = [record for record in document["annotations"] if int(record["image_id"]) in ids]
    return DetectionSplit(split.annotations, tuple(images), split.categories, document)
