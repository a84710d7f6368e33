"""Calibration: images of the training split, and the range of every tensor that they drive through the model."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Job
from components.core.errors import UserError
from components.core.tasks.detection import fit, in_batches, read_split


@dataclass(frozen=True)
class CalibrationSet:
    """Fitted images with their provenance."""

    batches: list[npt.NDArray[np.float32]]
    """[N, 3, H, W] each, in 0..1, with N the target's batch; the last is filled up with its last image."""
    names: list[str]
    digest: str
    """sha256 over the pixels; two runs with one digest calibrate alike."""

    def card(self) -> dict[str, Any]:
        """Provenance for the report."""
        return {"images": len(self.names), "names": self.names, "sha256": self.digest}


def read_calibration_set(job: Job, bundle: Path) -> CalibrationSet:
    """Draws `budget.calibration_images` images of the training split, with the job's seed.

    Raises:
        UserError: the split has no images.
    """
    split = read_split(bundle / "data" / "train" / "annotations.json", bundle / "data" / "train" / "images")
    if not split.images:
        raise UserError("data.train lists 0 images; INT8 needs at least one to calibrate with")
    order = np.random.default_rng(job.budget.seed).permutation(len(split.images))[: job.budget.calibration_images]
    chosen = [split.images[int(i)] for i in sorted(order)]
    count, _, height, width = job.target.input_shape
    batches = in_batches([fit(image.load(), height, width)[0] for image in chosen], count)
    digest = hashlib.sha256(b"".join(batch.tobytes() for batch in batches)).hexdigest()
    return CalibrationSet(batches, [image.file_name for image in chosen], digest)
