"""One training of the student, in this process or in each of several that torchrun started."""

import math
from typing import Any

from components.core.training.bundle import WEIGHTS, write_weights
from components.core.training.checkpoints import Checkpoints
from components.core.training.launcher import train_in_processes
from components.core.training.loop import train
from components.core.training.outcome import read_outcome, write_outcome
from components.distill.cache import AnswerStore
from components.distill.lesson import Lesson, alone, epoch_indices, loader_of, loss_of, prepare_lesson, student_of
from components.distill.request import Request

WORKER = "components.distill.worker"


def train_student(request: Request, lesson: Lesson | None = None) -> None:
    """Trains the student; the first process writes its weights and `trained.json` into `request.out`.

    Args:
        request: what to train.
        lesson: of `prepare_lesson`, if there is one already.
    """
    job = request.job
    lesson = lesson or prepare_lesson(job, request.bundle, AnswerStore(request.answers_uri))
    settings = job.training.model_copy(update={"precision": request.precision})
    if request.alone:
        taught, lesson = lesson, alone(lesson)
        settings = settings.model_copy(update={"epochs": _as_many_steps(taught, lesson)})
    module = student_of(lesson, request.bundle)
    done = train(
        module,
        loss_of(lesson),
        loader_of(lesson),
        settings,
        seed=job.budget.seed,
        checkpoints=Checkpoints(request.checkpoint_uri, request.identity),
        device=request.device,
    )
    if done.first:
        write_weights(module.student, request.out / WEIGHTS)
        write_outcome(done, request.out)


def train_students(request: Request, lesson: Lesson) -> dict[str, Any]:
    """Trains in as many processes as the job says; returns what `trained.json` says.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        DivergedError: the gradients are no numbers any more.
        StepError: the processes could not do it.
        UserError: the settings do not fit the data, the student or the machine.
    """
    processes = request.job.training.processes
    if processes == 1:
        train_student(request, lesson)
    else:
        train_in_processes(WORKER, request.model_dump_json(), processes, request.checkpoint_uri)
    return read_outcome(request.out)


def _as_many_steps(taught: Lesson, labels_alone: Lesson) -> int:
    """Epochs of the labels that have as many steps as the lesson with teachers."""
    training = taught.job.training
    steps = training.epochs * math.ceil(len(epoch_indices(taught)) / training.batch)
    return max(round(steps / math.ceil(len(epoch_indices(labels_alone)) / training.batch)), 1)
