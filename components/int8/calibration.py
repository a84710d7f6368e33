"""Calibration: images of the training split that set every tensor's range, and some held out to compare ranges on."""

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
from components.core.tasks.detection import DetectionSplit, SplitImage, fit, in_batches, read_split

HELD_OUT = 4
"""Images that calibrators are compared on; a quarter of the set where there are not so many more."""
_FEW = 32
_NEAR_DUPLICATE = 1e-3
"""Largest mean difference of two images, thumbnails in 0..1, that are called the same."""


@dataclass(frozen=True)
class CalibrationSet:
    """Fitted images with their provenance."""

    batches: Sequence[Batch]
    """[N, 3, H, W] each, in 0..1, with N the target's batch; the last is filled up with its last image. For a model
    that is given with arrays, all its inputs by name."""
    names: list[str]
    digest: str
    """sha256 over the pixels; two runs with one digest calibrate alike."""
    ids: list[int] = field(default_factory=list)
    """Ids of the images in the annotations."""
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
    """Draws `budget.calibration_images` images of the training split, with the job's seed, and some more to hold out.

    Raises:
        UserError: the split has no images.
    """
    split = read_split(bundle / "data" / "train" / "annotations.json", bundle / "data" / "train" / "images")
    if not split.images:
        raise UserError("data.train lists 0 images; INT8 needs at least one to calibrate with")
    order = np.random.default_rng(job.budget.seed).permutation(len(split.images))
    chosen = [split.images[int(i)] for i in sorted(order[: job.budget.calibration_images])]
    spare = [split.images[int(i)] for i in order[job.budget.calibration_images :][:HELD_OUT]]
    count, _, height, width = job.target.input_shape
    images = [fit(image.load(), height, width)[0] for image in chosen]
    warnings = _warnings(split, chosen, images)
    if spare:
        apart = [fit(image.load(), height, width)[0] for image in spare]
    else:
        # Held out of the comparison only in name: with a whole split for calibration, its last images must do.
        spare = chosen[-max(min(len(chosen) // 4, HELD_OUT), 1) :]
        apart = images[-len(spare) :]
        warnings.append("data.train has no image beyond the calibration set: calibrators were compared on some of it")
    batches = in_batches(images, count)
    digest = hashlib.sha256(b"".join(batch.tobytes() for batch in batches)).hexdigest()
    return CalibrationSet(
        batches,
        [image.file_name for image in chosen],
        digest,
        [image.id for image in chosen],
        job.budget.seed,
        in_batches(apart, count),
        [image.file_name for image in spare],
        warnings,
    )


def _warnings(split: DetectionSplit, chosen: list[SplitImage], images: list[npt.NDArray[np.float32]]) -> list[str]:
    """What makes a calibration set unfit to stand for the data."""
    found = []
    if len(chosen) < _FEW:
        found.append(
            f"the calibration set has {len(chosen)} images; ranges from fewer than {_FEW} are a matter of luck"
        )
    thumbnails = [image[0, :, ::8, ::8] for image in images]
    flat = sum(float(np.ptp(one)) < _NEAR_DUPLICATE for one in images)
    if flat:
        found.append(f"{flat} of {len(chosen)} calibration images have one colour: they say nothing of any range")
    copies = _duplicates(thumbnails)
    if copies:
        found.append(f"{copies} of {len(chosen)} calibration images are copies of others")
    ids = {image.id for image in chosen}
    with_boxes = {int(one["image_id"]) for one in split.document["annotations"]}
    if not ids & with_boxes:
        found.append("no calibration image has a box: the heads were never seen to find anything")
    return found


def _duplicates(thumbnails: list[npt.NDArray[np.float32]]) -> int:
    """How many images are (nearly) the same as an earlier one."""
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
