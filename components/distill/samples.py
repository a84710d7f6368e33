"""Which samples a student sees in an epoch: those with labels and those without, in the share that the job wants."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.contracts.job import Job
from components.core.tasks.adapter import TaskAdapter, read_split
from components.core.training.data import held_back
from components.distill.answers import sample_digest


def split_of(job: Job, bundle: Path, adapter: TaskAdapter) -> tuple[Any, Any, Any]:
    """The part of `train` that is trained on, the part that is held back, and what nobody labelled (or None).

    Raises:
        UserError: there are fewer than two labelled samples.
    """
    train = read_split(adapter, bundle, "train")
    names = [sample.name for sample in train.samples]
    chosen, back = held_back(names, job.training.validation, job.budget.seed)
    validation = train.subset(back)
    unlabelled = read_split(adapter, bundle, "unlabelled") if job.data.unlabelled else None
    if unlabelled is not None:
        # Learning what teachers say of a picture that is held back would flatter what is measured on it.
        judged = {sample_digest(sample) for sample in validation.samples}
        kept = [index for index, sample in enumerate(unlabelled.samples) if sample_digest(sample) not in judged]
        unlabelled = unlabelled.subset(kept) if kept else None
    return train.subset(chosen), validation, unlabelled


def epoch_of(labelled: int, unlabelled: int, share: float | None) -> list[int]:
    """Indices of an epoch's samples: the labelled ones come first in the numbering, then the others.

    Args:
        labelled: how many have labels.
        unlabelled: how many have none.
        share: of the epoch that has none; whichever part is too small for it is repeated. None: every sample once.
    """
    first, second = list(range(labelled)), list(range(labelled, labelled + unlabelled))
    if share is None or not labelled or not unlabelled:
        return first + second
    wanted_first = max(labelled, round(unlabelled * (1 - share) / share))
    wanted_second = max(unlabelled, round(labelled * share / (1 - share)))
    return _repeated(first, wanted_first) + _repeated(second, wanted_second)


def _repeated(indices: Sequence[int], count: int) -> list[int]:
    return [indices[number % len(indices)] for number in range(count)]
