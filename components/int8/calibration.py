"""Calibration: samples of the training split that set every tensor's range, and some held out to compare ranges on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Job
from components.core.errors import UserError
from components.core.feeds import Batch
from components.core.tasks.adapter import Dataset, Inputs, in_batches, read_split, task_adapter

HELD_OUT = 4
"""Samples that calibrators are compared on; a quarter of the set where there are not so many more."""
_FEW = 32
_NEAR_DUPLICATE = 1e-3
"""Largest mean difference of two images, thumbnails in 0..1, that are called the same."""


@dataclass(frozen=True)
class CalibrationSet:
    """Encoded samples with their provenance."""

    batches: Sequence[Batch]
    """Inputs of a call each, of the target's batch; the last is filled up with its last sample."""
    names: list[str]
    digest: str
    """sha256 over the inputs; two runs with one digest calibrate alike."""
    ids: list[int] = field(default_factory=list)
    """Ids of the samples in the annotations, where they have some."""
    seed: int = 0
    held_out: Sequence[Batch] = field(default_factory=list)
    """Batches that calibrators are compared on."""
    held_out_names: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What is wrong with the set, for a person; empty where nothing is."""

    def card(self) -> dict[str, Any]:
        """Provenance for the report."""
        return {
            "images": len(self.names),
            "names": self.names,
            "ids": self.ids,
            "seed": self.seed,
            "sha256": self.digest,
            "held_out": self.held_out_names,
            "warnings": self.warnings,
        }


def read_calibration_set(job: Job, bundle: Path) -> CalibrationSet:
    """Draws `budget.calibration_images` samples of the training split, with the job's seed, and some more to hold out.

    Raises:
        UserError: the split has no samples.
    """
    adapter = task_adapter(job, bundle)
    split: Dataset = read_split(adapter, bundle, "train")
    if not split.samples:
        raise UserError("data.train lists 0 samples; INT8 needs at least one to calibrate with")
    order = [int(i) for i in np.random.default_rng(job.budget.seed).permutation(len(split.samples))]
    indices = sorted(order[: job.budget.calibration_images])
    chosen = [split.samples[index] for index in indices]
    spare = [split.samples[index] for index in order[job.budget.calibration_images :][:HELD_OUT]]
    count = job.target.input_shape[0]
    encoded = [adapter.encode(sample.load())[0] for sample in chosen]
    warnings = _warnings(split, indices, encoded, adapter.noun)
    if spare:
        apart = [adapter.encode(sample.load())[0] for sample in spare]
    else:
        # Held out of the comparison only in name: with a whole split for calibration, its last samples must do.
        spare = chosen[-max(min(len(chosen) // 4, HELD_OUT), 1) :]
        apart = encoded[-len(spare) :]
        warnings.append(
            f"data.train has no {adapter.noun} beyond the calibration set: calibrators were compared on some of it"
        )
    batches = in_batches(encoded, count)
    digest = hashlib.sha256(b"".join(array.tobytes() for batch in batches for array in batch.values())).hexdigest()
    return CalibrationSet(
        batches,
        [sample.name for sample in chosen],
        digest,
        [int(number) for sample in chosen if (number := getattr(sample, "id", None)) is not None],
        job.budget.seed,
        in_batches(apart, count),
        [sample.name for sample in spare],
        warnings,
    )


def _warnings(split: Dataset, indices: list[int], encoded: list[Inputs], noun: str) -> list[str]:
    """What makes a calibration set unfit to stand for the data."""
    found = []
    count = len(indices)
    if count < _FEW:
        found.append(f"the calibration set has {count} {noun}s; ranges from fewer than {_FEW} are a matter of luck")
    arrays = [np.asarray(next(iter(inputs.values())), np.float32) for inputs in encoded]
    flat = sum(float(np.ptp(one)) < _NEAR_DUPLICATE for one in arrays)
    if flat:
        found.append(f"{flat} of {count} calibration {noun}s have one value throughout: they say nothing of any range")
    copies = _duplicates([_thumbnail(one) for one in arrays])
    if copies:
        found.append(f"{copies} of {count} calibration {noun}s are copies of others")
    if unseen := split.unseen(indices):
        found.append(f"calibration {noun}s: {unseen}")
    return found


def _thumbnail(inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Fewer pixels of a large image; anything else as it is."""
    return inputs[0, :, ::8, ::8] if inputs.ndim == 4 and min(inputs.shape[2:]) >= 64 else inputs[0]


def _duplicates(thumbnails: list[npt.NDArray[np.float32]]) -> int:
    """How many samples are (nearly) the same as an earlier one."""
    flat = np.stack([one.reshape(-1) for one in thumbnails])
    # Two images that are alike have means that are alike: only neighbours in that order are compared.
    order = np.argsort(flat.mean(axis=1), kind="stable")
    copies = 0
    for place, number in enumerate(order):
        for other in order[max(place - 3, 0) : place]:
            if float(np.abs(flat[number] - flat[other]).mean()) < _NEAR_DUPLICATE:
                copies += 1
                break
    return copies
