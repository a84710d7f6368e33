"""An entrant: a model that may take the place of the user's, with the folder that every step knows how to read."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from components.core.contracts.job import Job, ModelSource
from components.core.files import link_or_copy
from components.core.training.bundle import WEIGHTS


@dataclass(frozen=True)
class Facts:
    """What is known of an entrant without running it."""

    parameters: int | None = None
    family: str = ""
    """Architecture whose sizes compare by their parameters, for instance `resnet`; empty: none."""
    published: float | None = None
    """Published accuracy, 0..1; None where it is not known offline."""
    published_as: str = ""


Prepare = Callable[[Path], Facts]
"""Writes an entrant's first weights, a file of `write_weights`, to the path; raises what keeps it from taking part."""


@dataclass(frozen=True)
class Entrant:
    """One candidate of a search.

    Args:
        id: unique in the search; safe in paths, for instance `timm-resnet18-320x320`.
        job: the job with this model in the place of the user's (`entrant_job`), and perhaps another input size.
        prepare: makes its first weights.
    """

    id: str
    job: Job
    prepare: Prepare = field(compare=False)

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of its input."""
        return tuple(self.job.target.input_shape[2:])


def entrant_job(job: Job, factory: str, kwargs: dict[str, object], size: tuple[int, int] | None = None) -> Job:
    """The job with another model, whose weights are in the entrant's folder.

    Args:
        job: the user's.
        factory: `package.module:function`.
        kwargs: of the factory; plain JSON.
        size: height and width of the input in pixels; default: the job's own.
    """
    model = ModelSource(factory=factory, kwargs=kwargs, weights=WEIGHTS)
    target = job.target
    if size is not None:
        target = target.model_copy(update={"input_shape": (*target.input_shape[:2], *size)})
    return job.model_copy(update={"model": model, "target": target})


def make_folder(entrant: Entrant, bundle: Path, folder: Path) -> Facts:
    """Makes an entrant's bundle: its first weights, and the data of the user's by a link.

    Args:
        entrant: whose.
        bundle: what `fetch` made.
        folder: appears; what was there is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    facts = entrant.prepare(folder / "model" / WEIGHTS)
    (folder / "data").symlink_to((bundle / "data").resolve(), target_is_directory=True)
    link_or_copy(bundle / "fetch_card.json", folder / "fetch_card.json", "the card")
    return facts
