"""Classification of images, texts and recordings, as training sees it: encoded samples, cross entropy, accuracy."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from components.core.contracts.job import Job, Metric, Task
from components.core.errors import StepError
from components.core.tasks.adapter import TaskAdapter, in_batches, read_split, task_adapter
from components.core.tasks.labelled import LabelledSplit, Logits
from components.core.tasks.torch_calls import call, inputs_taken
from components.core.training.data import Loader, Share, Shuffled, held_back
from components.core.training.task import TrainingTask

Encoded = dict[str, torch.Tensor]
"""A model's inputs by the task's names."""
Batch = tuple[Encoded, torch.Tensor]
"""Inputs, and labels [N]."""
_JUDGED_AT_ONCE = 32


def labelled_loss(module: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Cross entropy of the logits.

    Raises:
        StepError: the module returns no logits, or fewer than there are classes.
    """
    inputs, labels = batch
    logits = call(module, inputs, inputs_taken(getattr(module, "module", module), tuple(inputs)))
    if int(labels.max()) >= logits.shape[1]:
        raise StepError(
            f"the model has {logits.shape[1]} outputs and the data a class number {int(labels.max())}; give data.labels"
        )
    return {"cross_entropy": cross_entropy(logits.float(), labels)}


def labelled_loader(
    adapter: TaskAdapter, split: LabelledSplit, batch: int, seed: int, *, flip: bool = False, workers: int = 0
) -> Loader:
    """Batches of a split, every sample encoded as the deployed model will see it.

    Args:
        adapter: of the task.
        split: what to train on.
        batch: samples a step, over all processes together.
        seed: of order and mirroring.
        flip: whether to mirror half of the samples, which are images.
        workers: processes that read ahead.
    """

    def make(index: int, chooser: random.Random) -> tuple[Encoded, int]:
        sample = split.samples[index]
        inputs = encoded(adapter, sample.load())
        if flip and chooser.random() < 0.5:
            inputs = {name: value.flip(-1) for name, value in inputs.items()}
        return inputs, sample.label

    def loader(share: Share) -> Shuffled:
        return Shuffled(len(split.samples), make, collate, batch, seed, workers, share)

    return loader


def encoded(adapter: TaskAdapter, raw: object) -> Encoded:
    """A loaded sample as tensors, without the axis of the batch."""
    inputs, _ = adapter.encode(raw)
    return {name: torch.from_numpy(np.ascontiguousarray(value[0])) for name, value in inputs.items()}


def collate(samples: Sequence[tuple[Encoded, int]]) -> Batch:
    """Samples as one batch."""
    names = samples[0][0]
    inputs = {name: torch.stack([one[name] for one, _ in samples]) for name in names}
    return inputs, torch.tensor([label for _, label in samples], dtype=torch.int64)


def logits_of_split(
    module: torch.nn.Module, adapter: TaskAdapter, split: LabelledSplit, device: str = "cpu"
) -> dict[str, Logits]:
    """Logits [classes] of every sample by name, in eval mode and FP32.

    Raises:
        StepError: the module returns NaN or no logits.
    """
    module.to(device).eval()
    taken = inputs_taken(module, adapter.inputs)
    found: dict[str, Logits] = {}
    with torch.inference_mode():
        for start in range(0, len(split.samples), _JUDGED_AT_ONCE):
            group = split.samples[start : start + _JUDGED_AT_ONCE]
            (arrays,) = in_batches([adapter.encode(sample.load())[0] for sample in group], len(group))
            tensors = {name: torch.from_numpy(np.ascontiguousarray(value)).to(device) for name, value in arrays.items()}
            logits = call(module, tensors, taken).float().cpu().numpy()
            rows = adapter.predictions(len(group), [logits])
            found |= {sample.name: row for sample, row in zip(group, rows, strict=True)}
    return found


def accuracy_of(
    module: torch.nn.Module, adapter: TaskAdapter, split: LabelledSplit, device: str = "cpu"
) -> dict[Metric, float]:
    """Accuracy and macro F1 (0..1) of a classifier in FP32.

    Raises:
        StepError: the module returns NaN or no logits.
    """
    return adapter.evaluate(logits_of_split(module, adapter, split, device), split)


def labelled_task(job: Job, bundle: Path) -> TrainingTask:
    """A classifier on the training split of a bundle; see `training_task`. Only images are ever mirrored."""
    adapter = task_adapter(job, bundle)
    split: LabelledSplit = read_split(adapter, bundle, "train")
    names = [sample.name for sample in split.samples]
    chosen, back = held_back(names, job.training.validation, job.budget.seed)
    validation = split.subset(back)

    def judge(module: torch.nn.Module, device: str) -> dict[str, float] | None:
        accuracies = accuracy_of(module, adapter, validation, device)
        return {str(metric): round(value, 4) for metric, value in accuracies.items()}

    return TrainingTask(
        loss=labelled_loss,
        loader=labelled_loader(
            adapter,
            split.subset(chosen),
            job.training.batch,
            job.budget.seed,
            flip=job.training.flip and job.task is Task.CLASSIFICATION,
            workers=job.training.workers,
        ),
        evaluate=judge,
        trained_on=len(chosen),
        held_back=len(back),
    )
