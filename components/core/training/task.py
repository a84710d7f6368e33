"""What training needs to know of a task: its data, its loss, how a model is judged. The loop knows nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from components.core.contracts.job import Job, Task
from components.core.training.data import Loader
from components.core.training.loop import Loss


@dataclass(frozen=True)
class TrainingTask:
    """A job's task on a job's data; `test` is not part of it."""

    loss: Loss
    loader: Loader
    evaluate: Callable[[torch.nn.Module, str], dict[str, float] | None]
    """Accuracies (0..1) by name of a module, on a device, on the samples held back; None if these cannot tell."""
    trained_on: int
    held_back: int


def training_task(job: Job, bundle: Path) -> TrainingTask:
    """The task of a job on the training split of a bundle, part of which is held back.

    Raises:
        UserError: the data cannot be trained on.
    """
    if job.task is Task.DETECTION:
        from components.core.training.detection import detection_task

        return detection_task(job, bundle)
    from components.core.training.labelled import labelled_task

    return labelled_task(job, bundle)
