"""A lesson: everything that a training of the student needs, for any task, in each of its processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from components.core.contracts.job import Distill, Job, Task
from components.core.tasks.adapter import TaskAdapter, task_adapter
from components.core.tasks.detection import Detections, DetectionSplit
from components.core.training.data import Loader
from components.core.training.detection import accuracy_of as detector_accuracy
from components.core.training.detection import truth_of
from components.core.training.labelled import accuracy_of as classifier_accuracy
from components.core.training.loop import Loss
from components.distill import detection, labelled
from components.distill.answers import Answers, Asked, ask, sample_digest
from components.distill.cache import AnswerStore
from components.distill.fusion import fuse
from components.distill.losses import soft_targets
from components.distill.samples import epoch_of, split_of
from components.distill.student import Distilled, new_student
from components.distill.teachers import teachers_of


@dataclass(frozen=True)
class Lesson:
    """The samples of a job with the teachers' answers about them."""

    job: Job
    settings: Distill
    adapter: TaskAdapter
    trained: Any
    validation: Any
    unlabelled: Any
    """None where there are none."""
    answers: Sequence[Answers]
    asked: Sequence[Asked]

    @property
    def samples(self) -> list[Any]:
        """Those that are learnt from."""
        return [*self.trained.samples, *(self.unlabelled.samples if self.unlabelled else ())]


def prepare_lesson(job: Job, bundle: Path, store: AnswerStore) -> Lesson:
    """Reads the data and asks the teachers what is not known yet.

    Raises:
        StoppedError: SIGINT or SIGTERM came while a teacher was asked.
        UserError: the data or a teacher cannot be used.
    """
    if job.distill is None:
        raise ValueError("the job has no distill")
    adapter = task_adapter(job, bundle)
    trained, validation, unlabelled = split_of(job, bundle, adapter)
    samples = [*trained.samples, *validation.samples, *(unlabelled.samples if unlabelled else ())]
    mirrored = job.task is Task.CLASSIFICATION and job.training.flip
    both = [ask(job, bundle, store, number, samples, mirrored=mirrored) for number, _ in enumerate(teachers_of(job))]
    return Lesson(
        job, job.distill, adapter, trained, validation, unlabelled, [one for one, _ in both], [one for _, one in both]
    )


def alone(lesson: Lesson) -> Lesson:
    """The same without teachers: what the student learns from labels by itself."""
    settings = lesson.settings.model_copy(update={"soft": 0.0, "hard": 1.0, "hints": [], "unlabelled_share": None})
    return Lesson(
        lesson.job, settings, lesson.adapter, lesson.trained, lesson.validation, None, lesson.answers, lesson.asked
    )


def loss_of(lesson: Lesson) -> Loss:
    """What the student minimises."""
    if lesson.job.task is Task.DETECTION:
        return detection.detection_distillation(lesson.settings)
    return labelled.labelled_distillation(lesson.settings)


def epoch_indices(lesson: Lesson) -> list[int]:
    """Indices into `Lesson.samples` of an epoch."""
    without = len(lesson.unlabelled.samples) if lesson.unlabelled else 0
    return epoch_of(len(lesson.trained.samples), without, lesson.settings.unlabelled_share)


def loader_of(lesson: Lesson) -> Loader:
    """Gives the batches."""
    job, training = lesson.job, lesson.job.training
    epoch = epoch_indices(lesson)
    if job.task is Task.DETECTION:
        known = truth_of(lesson.trained)
        truth: list[Any] = [known[image.id] for image in lesson.trained.samples]
        truth += [None] * (len(lesson.samples) - len(truth))
        return detection.detection_loader(
            detection.TaughtImages(lesson.samples, truth, epoch, lesson.answers),
            lesson.settings,
            (job.target.input_shape[2], job.target.input_shape[3]),
            training.batch,
            job.budget.seed,
            flip=training.flip,
            workers=training.workers,
        )
    labels = labelled.labels_of(lesson.trained, lesson.unlabelled)
    return labelled.labelled_loader(
        lesson.adapter,
        labelled.Taught(lesson.samples, labels, epoch, lesson.answers),
        lesson.settings,
        training.batch,
        job.budget.seed,
        flip=training.flip and job.task is Task.CLASSIFICATION,
        workers=training.workers,
    )


def student_of(lesson: Lesson, bundle: Path) -> Distilled:
    """The student before it learns anything, with the adapters of its hints."""
    student = new_student(lesson.job, bundle)
    is_detection = lesson.job.task is Task.DETECTION
    call: Callable[..., Any] = detection.invoke if is_detection else labelled.invoke
    if not lesson.settings.hints:
        return Distilled(student, call)
    sample = lesson.samples[0]
    answers = [teacher.of(sample_digest(sample)) for teacher in lesson.answers]
    channels = [len(feature) for feature in labelled.feature_reader(lesson.settings)(answers)]
    inputs = {name: torch.from_numpy(value) for name, value in lesson.adapter.encode(sample.load())[0].items()}
    probe: tuple[Any, ...] = (list(inputs["image"]),) if is_detection else (inputs,)
    return Distilled(student, call, lesson.settings.hints, channels, probe)


def accuracy_of(lesson: Lesson, student: nn.Module, device: str) -> dict[str, float] | None:
    """Accuracies (0..1) of a student on what was held back; None where that has no truth."""
    split, shape = lesson.validation, lesson.job.target.input_shape
    if lesson.job.task is Task.DETECTION:
        return _named(detector_accuracy(student, split, (shape[2], shape[3]), device))
    return _named(classifier_accuracy(student, lesson.adapter, split, device))


def teachers_accuracy(lesson: Lesson) -> dict[str, float] | None:
    """Accuracies of the teachers together on what was held back, from what they answered."""
    if not lesson.validation.can_judge:
        return None
    found = {}
    for sample in lesson.validation.samples:
        answers = [teacher.of(sample_digest(sample)) for teacher in lesson.answers]
        if isinstance(lesson.validation, DetectionSplit):
            _, scale = lesson.adapter.encode(sample.load())
            each = [Detections(one["boxes"], one["scores"], one["labels"]) for one in answers]
            found[sample.name] = lesson.adapter.decode(fuse(each, lesson.settings.fusion_iou), scale)
        else:
            logits = torch.from_numpy(np.array([one["logits"] for one in answers]))[:, None]
            found[sample.name] = soft_targets(logits, 1.0)[0].log().clamp(min=-100.0).numpy()
    return _named(lesson.adapter.evaluate(found, lesson.validation))


def _named(accuracies: Any) -> dict[str, float] | None:
    return {str(metric): round(value, 4) for metric, value in accuracies.items()} if accuracies else None
