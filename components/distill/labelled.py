"""Classifiers of images, texts and recordings as students: softened probabilities of the teachers, labels, hints."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from components.core.contracts.job import Distill
from components.core.errors import UserError
from components.core.tasks.adapter import TaskAdapter
from components.core.tasks.torch_calls import call, inputs_taken
from components.core.training.data import Loader, Share, Shuffled
from components.core.training.labelled import Encoded, encoded
from components.core.training.loop import Loss
from components.distill.answers import Answers, sample_digest
from components.distill.losses import NO_LABEL, hard_loss, hint_loss, soft_loss, soft_targets

Batch = tuple[Encoded, torch.Tensor, torch.Tensor, list[torch.Tensor]]
"""Inputs; labels [N], `NO_LABEL` where there is none; logits [teachers, N, classes]; features, one for each hint."""


@dataclass(frozen=True)
class Taught:
    """Samples with what is known of them."""

    samples: Sequence[Any]
    labels: Sequence[int]
    epoch: Sequence[int]
    """Indices of the samples of an epoch."""
    answers: Sequence[Answers]
    """Of each teacher."""


def invoke(student: nn.Module, inputs: Encoded) -> torch.Tensor:
    """Logits [N, classes] of the student."""
    return call(student, inputs, inputs_taken(student, tuple(inputs)))


def labelled_distillation(settings: Distill) -> Loss:
    """The loss of a student that classifies: what the teachers say, what the labels say, the hints."""

    def loss(module: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        inputs, labels, taught, features = batch
        logits, own = module(inputs)
        if logits.shape[1] != taught.shape[2]:
            raise UserError(
                f"distill.student: the student has {logits.shape[1]} outputs and the teachers {taught.shape[2]}; give "
                "it as many classes"
            )
        losses = {}
        if settings.soft:
            targets = soft_targets(taught, settings.temperature)
            losses["soft"] = settings.soft * soft_loss(logits, targets, settings.temperature)
        if settings.hard:
            losses["hard"] = settings.hard * hard_loss(logits, labels)
        return losses | hint_losses(settings, own, features)

    return loss


def hint_losses(
    settings: Distill, own: Sequence[torch.Tensor], taught: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The loss of each hint, by name."""
    pairs = zip(settings.hints, own, taught, strict=True)
    return {f"hint_{number}": hint.weight * hint_loss(one, other) for number, (hint, one, other) in enumerate(pairs, 1)}


def labelled_loader(
    adapter: TaskAdapter,
    taught: Taught,
    settings: Distill,
    batch: int,
    seed: int,
    *,
    flip: bool = False,
    workers: int = 0,
) -> Loader:
    """Batches of samples with the teachers' answers about the very same view of them.

    Args:
        adapter: of the task.
        taught: the samples.
        settings: whose hints to read.
        batch: samples a step, over all processes together.
        seed: of order and mirroring.
        flip: whether to mirror half of the samples, which are images.
        workers: processes that read ahead.
    """
    digests = [sample_digest(sample) for sample in taught.samples]
    features = feature_reader(settings)

    def make(place: int, chooser: random.Random) -> Any:
        index = taught.epoch[place]
        mirrored = flip and chooser.random() < 0.5
        inputs = encoded(adapter, taught.samples[index].load())
        if mirrored:
            inputs = {name: value.flip(-1) for name, value in inputs.items()}
        answers = [teacher.of(digests[index], int(mirrored)) for teacher in taught.answers]
        return inputs, taught.labels[index], [answer["logits"] for answer in answers], features(answers)

    def loader(share: Share) -> Shuffled:
        return Shuffled(len(taught.epoch), make, collate, batch, seed, workers, share)

    return loader


def feature_reader(settings: Distill) -> Callable[[Sequence[dict[str, Any]]], list[torch.Tensor]]:
    """Gives the features of each hint out of the teachers' answers about a sample."""
    places = []
    for hint in settings.hints:
        asked = list(dict.fromkeys(one.teacher for one in settings.hints if one.of == hint.of))
        places.append((hint.of, f"hint.{asked.index(hint.teacher)}"))

    def read(answers: Sequence[dict[str, Any]]) -> list[torch.Tensor]:
        return [torch.from_numpy(np.asarray(answers[teacher][name], np.float32)) for teacher, name in places]

    return read


def collate(samples: Sequence[Any]) -> Batch:
    """Samples as one batch."""
    names = samples[0][0]
    inputs = {name: torch.stack([one[0][name] for one in samples]) for name in names}
    labels = torch.tensor([one[1] for one in samples], dtype=torch.int64)
    logits = torch.from_numpy(np.array([one[2] for one in samples], np.float32)).transpose(0, 1)
    hints = [torch.stack(list(each)) for each in zip(*(one[3] for one in samples), strict=True)]
    return inputs, labels, logits, hints


def labels_of(labelled: Any, unlabelled: Any) -> list[int]:
    """A label for each sample of both parts."""
    return [sample.label for sample in labelled.samples] + [NO_LABEL] * (len(unlabelled.samples) if unlabelled else 0)
