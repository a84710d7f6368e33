"""Rung 6: a small student learns from the user's model, or from several; makes a bundle that `compress` takes."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from components.core.contracts.job import Job, ModelSource, Precision
from components.core.contracts.training import Lessons, TrainingCard
from components.core.contracts.variant import Status
from components.core.errors import StepError, UserError
from components.core.factory_code import factory_digest
from components.core.files import sha256_tree, staging
from components.core.models import read_state_dict
from components.core.stepping import is_disk_full, progress
from components.core.training.bundle import WEIGHTS, recipe_of, write_trained_bundle
from components.core.training.checkpoints import Checkpoints, checkpoints_of
from components.core.training.outcome import environment, filled, without_bundle
from components.core.training.precision import native_precision, usable_device
from components.core.training.stopping import StoppedError
from components.distill.cache import digest_of, store_of
from components.distill.lesson import Lesson, accuracy_of, prepare_lesson, student_of, teachers_accuracy
from components.distill.readme import readme
from components.distill.request import Request
from components.distill.teachers import teacher_facts, teachers_of
from components.distill.training import train_students

RUNG = "distill"


def run_distill(
    job: Job, bundle: Path, out: Path, bundle_uri: str = "", code_version: str = ""
) -> tuple[TrainingCard, Job]:
    """Teaches the job's student and fills `out` with a bundle of it.

    Killed at any moment, the next call with the same arguments asks no teacher again what it has answered, and goes on
    from the last checkpoint.

    Args:
        job: the job; `job.distill` says who learns from whom, `job.training` how.
        bundle: what `fetch` made. Its test split is handed on and never read.
        out: folder that appears whole; only a card is in it when nothing could be trained.
        bundle_uri: where the bundle is from; in an S3 store answers and checkpoint are kept beside it.
        code_version: of hasten; another version does not go on from this one's checkpoints.

    Returns:
        The card, which says `skipped` or `failed` and why when there is no bundle, and the job for `compress`.

    Raises:
        StoppedError: SIGINT or SIGTERM came; what was done is kept.
    """
    seed = job.budget.seed
    card = TrainingCard(rung=RUNG, status=Status.OK, settings=job.training, seed=seed, environment=environment())
    if job.distill is None:
        reason = "the job names no student; give distill.student.factory, a smaller model with the same outputs"
        return without_bundle(out, card, Status.SKIPPED, reason), job
    device = usable_device()
    precision = native_precision(device) if job.training.precision is Precision.AUTO else job.training.precision
    card = card.model_copy(update={"precision": precision, "device": device})
    try:
        card = _taught(job, bundle, out, card, bundle_uri, code_version)
    except StoppedError:
        raise
    except Exception as error:  # a student that cannot learn is a row with its reason, not the run's end
        if is_disk_full(error):
            raise
        words = " ".join(str(error).split())[:300]
        known = isinstance(error, StepError | UserError)
        reason = words if known else f"distillation failed: {type(error).__name__}: {words}"
        return without_bundle(out, card, Status.FAILED, reason), job
    student = job.distill.student
    model = ModelSource(factory=student.factory, kwargs=student.kwargs, weights=WEIGHTS)
    return card, recipe_of(job, model)


def _taught(job: Job, bundle: Path, out: Path, card: TrainingCard, bundle_uri: str, code_version: str) -> TrainingCard:
    if job.distill is None or card.precision is None:
        raise ValueError("the job has no distill")
    store = store_of(job.distill.answers, bundle_uri)
    lesson = prepare_lesson(job, bundle, store)
    module = student_of(lesson, bundle)  # before any training: a wrong name of a hint or a factory shows here
    identity = _identity(job, bundle, card, code_version)
    checkpoints = checkpoints_of(identity, bundle_uri)
    alone = checkpoints_of(digest_of({"alone": identity}), bundle_uri)
    progress("measuring the accuracy before")
    before = accuracy_of(lesson, module.student, card.device) if job.distill.student.weights else None
    request = Request(
        job=job,
        bundle=bundle,
        answers_uri=store.uri,
        device=card.device,
        precision=card.precision,
        out=out,
        checkpoint_uri=checkpoints.uri,
        identity=identity,
    )
    with staging(out, replace=True) as folder:
        work = folder / ".work"
        without = _alone(request, lesson, work / "alone", alone) if job.distill.compare else None
        (work / "taught").mkdir(parents=True)
        done = train_students(request.model_copy(update={"out": work / "taught"}), lesson)
        progress("measuring the accuracy after")
        after = _accuracy(lesson, bundle, work / "taught", card.device)
        facts: dict[str, Any] = {
            "trained_on": len(lesson.trained.samples),
            "held_back": len(lesson.validation.samples),
            "accuracy_before": before,
            "accuracy_after": after,
            "lessons": _lessons(lesson, without),
        }
        card = filled(card, done).model_copy(update=facts)
        card = write_trained_bundle(bundle, folder, work / "taught" / WEIGHTS, card, readme(card))
        shutil.rmtree(work)
    for kept in (checkpoints, alone):
        kept.clear()
    return card


def _alone(request: Request, lesson: Lesson, work: Path, checkpoints: Checkpoints) -> dict[str, float] | None:
    """What the same student comes to on labels alone; its checkpoint stays until all is done, so it is trained once."""
    work.mkdir(parents=True)
    update = {"out": work, "alone": True, "identity": checkpoints.identity, "checkpoint_uri": checkpoints.uri}
    train_students(request.model_copy(update=update), lesson)
    return _accuracy(lesson, request.bundle, work, request.device)


def _accuracy(lesson: Lesson, bundle: Path, work: Path, device: str) -> dict[str, float] | None:
    student = student_of(lesson, bundle).student
    student.load_state_dict(read_state_dict(work / WEIGHTS))
    return accuracy_of(lesson, student, device)


def _lessons(lesson: Lesson, without: dict[str, float] | None) -> Lessons:
    return Lessons(
        teachers=[teacher.factory or teacher.program or teacher.onnx or "" for teacher in teachers_of(lesson.job)],
        unlabelled=len(lesson.unlabelled.samples) if lesson.unlabelled else 0,
        answers=sum(one.answers for one in lesson.asked),
        answers_reused=sum(one.reused for one in lesson.asked),
        answers_bytes=sum(one.bytes for one in lesson.asked),
        teachers_accuracy=teachers_accuracy(lesson),
        accuracy_alone=without,
    )


def _identity(job: Job, bundle: Path, card: TrainingCard, code_version: str) -> str:
    """Digest of everything that decides which weights come out; limits and pauses do not, they only end it."""
    if job.distill is None:
        raise ValueError("the job has no distill")
    fetched = json.loads((bundle / "fetch_card.json").read_text())
    free = {"max_time", "max_core_time", "checkpoint_every", "processes", "workers"}
    student = bundle / "student"
    return digest_of(
        {
            "rung": RUNG,
            "training": job.training.model_dump(mode="json", exclude=free),
            "distill": job.distill.model_dump(mode="json", exclude={"answers", "compare", "teachers"}),
            "teachers": [teacher_facts(job, bundle, number) for number, _ in enumerate(teachers_of(job))],
            "student": sha256_tree(student) if student.is_dir() else "",
            "code of the student": factory_digest(job.distill.student.factory),
            "input_shape": job.target.input_shape,
            "preprocess": job.preprocess.model_dump(mode="json"),
            "seed": job.budget.seed,
            "data": fetched["train"],
            "unlabelled": (fetched.get("lessons") or {}).get("unlabelled"),
            "precision": card.precision,
            "device": card.device,
            "torch": torch.__version__,
            "code": code_version,
        }
    )
