"""What a student gains from teachers: the same student on labels alone and distilled, as many steps, several seeds.

`python tests/benchmarks/distill_gain.py --task classification --out runs/distill-gain` after `hasten sample digits`
(text: `spam`; audio: `languages`; detection: `trees`). Trains teachers and students, takes accuracies on the test
split, prints a table and writes `TASK.json`. What was trained is kept in `--out` and not trained again; remove the
folder to start anew. Conditions:

- all labels: alone, distilled from one teacher, distilled from an ensemble;
- a share of the labels, the other samples without theirs: alone; distilled from one teacher or the ensemble, which saw
  all labels, as the user's accurate model has; with `--few-teachers` also from one that saw that share alone.

Each seed draws another student, order and share of labels and has its own teacher; the ensemble is the same three.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from components.core.contracts.job import Job, Precision
from components.core.files import sha256_file, write_json_atomic
from components.core.job_file import build_job, read_fields, read_text
from components.core.machine import describe
from components.core.models import call_factory, read_state_dict
from components.core.stepping import listening
from components.core.tasks.adapter import read_split
from components.core.training.bundle import WEIGHTS, write_weights
from components.core.training.loop import train
from components.core.training.task import training_task
from components.distill.cache import AnswerStore, digest_of
from components.distill.lesson import accuracy_of, prepare_lesson, student_of
from components.distill.request import Request
from components.distill.training import train_student
from components.fetch.run import run_fetch

EXAMPLES = Path(__file__).parents[2] / "pipelines" / "examples"
ENSEMBLE = 3


@dataclass(frozen=True)
class Recipe:
    """Who teaches whom."""

    job: str
    """Example job, whose data and input are taken."""
    teacher: dict[str, Any]
    student: dict[str, Any]
    teaching: dict[str, Any]
    """`training` of the teachers."""
    learning: dict[str, Any]
    """`training` of the students."""
    distill: dict[str, Any]
    unlabelled: dict[str, str]
    most: int
    """Training samples that the study takes, so that it ends in minutes."""


_SMALL = "pipelines.samples.small_classifiers"
_PLAIN = {"precision": "fp32", "validation": 0.1, "flip": False}
RECIPES = {
    "classification": Recipe(
        job="digits.yaml",
        teacher={"factory": f"{_SMALL}:digit_classifier", "kwargs": {"width": 12}},
        student={"factory": f"{_SMALL}:digit_classifier", "kwargs": {"width": 2}},
        teaching=_PLAIN | {"epochs": 6, "batch": 32, "learning_rate": 5e-3},
        learning=_PLAIN | {"epochs": 8, "batch": 32, "learning_rate": 5e-3},
        distill={"temperature": 4.0, "soft": 0.9, "hard": 0.1},
        unlabelled={"images": "unlabelled"},
        most=2000,
    ),
    "text": Recipe(
        job="spam.yaml",
        teacher={"factory": f"{_SMALL}:spam_classifier", "kwargs": {"width": 64}},
        student={"factory": f"{_SMALL}:spam_classifier", "kwargs": {"width": 16}},
        teaching=_PLAIN | {"epochs": 6, "batch": 32, "learning_rate": 2e-3},
        learning=_PLAIN | {"epochs": 8, "batch": 32, "learning_rate": 3e-3},
        distill={"temperature": 2.0, "soft": 0.9, "hard": 0.1},
        unlabelled={"texts": "unlabelled"},
        most=1500,
    ),
    "audio": Recipe(
        job="languages.yaml",
        teacher={"factory": f"{_SMALL}:language_classifier", "kwargs": {"width": 16}},
        student={"factory": f"{_SMALL}:language_classifier", "kwargs": {"width": 2}},
        teaching=_PLAIN | {"epochs": 8, "batch": 32, "learning_rate": 3e-3},
        learning=_PLAIN | {"epochs": 8, "batch": 32, "learning_rate": 5e-3},
        distill={"temperature": 4.0, "soft": 0.9, "hard": 0.1},
        unlabelled={"audio": "unlabelled"},
        most=600,
    ),
}


@dataclass(frozen=True)
class Condition:
    """One row of the table."""

    name: str
    share: float
    """Of the samples that keep their labels."""
    teachers: tuple[str, ...]
    """Keys of `Study.teacher`; empty: labels alone."""


class Study:
    """One task in one folder.

    Args:
        task: a key of `RECIPES`.
        recipe: who teaches whom.
        out: folder that everything is kept in.
    """

    def __init__(self, task: str, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out / task
        self._template = self._read_job()
        self.bundle = self.out / "bundle"
        if not self.bundle.exists():
            run_fetch(self._template, self.out / "fetched")
            _divide(self.out / "fetched", self.bundle, recipe.most, seed=0)

    def _read_job(self) -> Job:
        path = EXAMPLES / self.recipe.job
        fields = read_fields(read_text(path), path.name)
        first = self.out / "first.safetensors"
        torch.manual_seed(0)
        if not first.exists():
            write_weights(call_factory(self.recipe.teacher["factory"], self.recipe.teacher["kwargs"]), first)
        fields["model"] = self.recipe.teacher | {"weights": str(first.absolute())}
        return build_job(fields, path.name, path.parent)

    def job(self, training: dict[str, Any], seed: int, **changes: Any) -> Job:
        """The template with other settings."""
        fields = self._template.model_dump(mode="json") | {"training": training} | changes
        fields["budget"]["seed"] = seed
        return Job.model_validate(fields)

    def divided(self, share: float, seed: int) -> Path:
        """A bundle in which a share of the training samples, drawn by the seed, keep their labels."""
        folder = self.out / f"labels-{share:g}-{seed}"
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=self.out) as temporary:
                made = Path(temporary) / "bundle"
                _divide(self.bundle, made, round(share * self.recipe.most), seed)
                made.rename(folder)
        return folder

    def teacher(self, share: float, seed: int) -> Path:
        """Weights of a teacher that was trained on a share of the labels."""
        weights = self.out / f"teacher-{share:g}-{seed}" / WEIGHTS
        if not weights.exists():
            job = self.job(self.recipe.teaching, seed)
            bundle = self.bundle if share == 1 else self.divided(share, seed)
            torch.manual_seed(seed)
            module = call_factory(self.recipe.teacher["factory"], self.recipe.teacher["kwargs"])
            task = training_task(job, bundle)
            settings = job.training
            if share < 1:  # as many steps, so that it has had its time
                settings = settings.model_copy(update={"epochs": round(settings.epochs / share)})
            train(module, task.loss, task.loader, settings, seed=seed)
            write_weights(module, weights)
        return weights

    def accuracy(self, condition: Condition, seed: int) -> dict[str, float]:
        """Accuracies on the test split of a student of that condition; trained once."""
        teachers = [self.teacher(*_teacher_key(one, condition, seed)) for one in condition.teachers or ("all",)]
        bundle = self.out / "work" / f"{condition.name}-{seed}".replace(" ", "-")
        shutil.rmtree(bundle, ignore_errors=True)
        source = self.divided(condition.share, seed) if condition.share < 1 else self.bundle
        shutil.copytree(source, bundle, symlinks=True)
        for number, weights in enumerate(teachers):
            place = bundle / "teachers" / str(number) / WEIGHTS
            place.parent.mkdir(parents=True)
            place.symlink_to(weights.absolute())
        data = self._template.model_dump(mode="json")["data"]
        if condition.share < 1:
            data["unlabelled"] = self.recipe.unlabelled
        taught = [self.recipe.teacher | {"weights": WEIGHTS} for _ in teachers]
        student = self.recipe.student | {"kwargs": self.recipe.student["kwargs"]}
        settings = self.recipe.distill | {"student": student, "teachers": taught}
        job = self.job(self.recipe.learning, seed, data=data, distill=settings)
        identity = digest_of({"job": job.model_dump(mode="json"), "teachers": [sha256_file(one) for one in teachers]})
        kept = self.out / "results" / f"{digest_of({'of': identity, 'condition': condition.name})[:24]}.json"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(kept, self._learn(job, bundle, condition, identity))
        shutil.rmtree(bundle)
        found: dict[str, float] = json.loads(kept.read_text())
        return found

    def _learn(self, job: Job, bundle: Path, condition: Condition, identity: str) -> dict[str, float]:
        lesson = prepare_lesson(job, bundle, AnswerStore(str((self.out / "answers").absolute())))
        with tempfile.TemporaryDirectory() as temporary:
            request = Request(
                job=job,
                bundle=bundle,
                answers_uri=str(self.out / "answers"),
                device="cpu",
                precision=Precision.FP32,
                out=Path(temporary),
                checkpoint_uri=str(Path(temporary) / "checkpoint.pt"),
                identity=identity,
                alone=not condition.teachers,
            )
            train_student(request, lesson)
            student = student_of(lesson, bundle).student
            student.load_state_dict(read_state_dict(Path(temporary) / WEIGHTS))
        test = replace(lesson, validation=read_split(lesson.adapter, bundle, "test"))
        return accuracy_of(test, student, "cpu") or {}

    def teacher_accuracy(self, share: float, seed: int) -> dict[str, float]:
        """Of a teacher on the test split."""
        weights = self.teacher(share, seed)
        kept = weights.parent / "accuracy.json"
        if not kept.exists():
            job = self.job(self.recipe.teaching, seed, distill={"student": self.recipe.student})
            lesson = prepare_lesson_of_test(job, self.bundle)
            module = call_factory(self.recipe.teacher["factory"], self.recipe.teacher["kwargs"])
            module.load_state_dict(read_state_dict(weights))
            write_json_atomic(kept, accuracy_of(lesson, module, "cpu") or {})
        found: dict[str, float] = json.loads(kept.read_text())
        return found


def prepare_lesson_of_test(job: Job, bundle: Path) -> Any:
    """A lesson that nobody asked a teacher for, with the test split to judge by."""
    from components.core.tasks.adapter import task_adapter
    from components.distill.lesson import Lesson

    adapter = task_adapter(job, bundle)
    train_split, test = read_split(adapter, bundle, "train"), read_split(adapter, bundle, "test")
    assert job.distill is not None
    return Lesson(job, job.distill, adapter, train_split, test, None, [], [])


def conditions(share: float, *, few_teachers: bool) -> list[Condition]:
    """Rows of the table; a teacher is named by the labels that it saw and its number."""
    few = f"{share:.0%} of labels"
    ensemble = tuple(f"all-{number}" for number in range(1, ENSEMBLE + 1))
    rows = [
        Condition("all labels, alone", 1.0, ()),
        Condition("all labels, distilled", 1.0, ("all",)),
        Condition(f"all labels, distilled from {ENSEMBLE}", 1.0, ensemble),
        Condition(f"{few}, alone", share, ()),
        Condition(f"{few} and unlabelled, distilled", share, ("all",)),
        Condition(f"{few} and unlabelled, distilled from {ENSEMBLE}", share, ensemble),
    ]
    if few_teachers:
        rows.append(Condition(f"{few} and unlabelled, teacher saw these labels alone", share, ("few",)))
    return rows


def _teacher_key(name: str, condition: Condition, seed: int) -> tuple[float, int]:
    """Labels that a teacher saw, and its seed: that of the study unless the name has another."""
    which, _, number = name.partition("-")
    return (condition.share if which == "few" else 1.0), int(number or seed)


def _divide(bundle: Path, out: Path, count: int, seed: int) -> None:
    """A bundle in which `count` training samples have their labels; the others are its unlabelled ones."""
    shutil.copytree(bundle, out, ignore=lambda folder, _: ["images"] if Path(folder).parent.name == "data" else [])
    for split in ("train", "test", "unlabelled"):
        images = (bundle / "data" / ("train" if split == "unlabelled" else split) / "images").absolute()
        (out / "data" / split).mkdir(parents=True, exist_ok=True)
        if images.exists():
            (out / "data" / split / "images").symlink_to(images)
    document = json.loads((bundle / "data" / "train" / "annotations.json").read_text())
    key = "samples" if "samples" in document else "images"
    rows = list(document[key])
    random.Random(seed).shuffle(rows)
    for split, chosen in (("train", rows[:count]), ("unlabelled", rows[count:])):
        part = document | {key: chosen}
        if key == "images":
            ids = {row["id"] for row in chosen} if split == "train" else set()
            part["annotations"] = [row for row in document["annotations"] if row["image_id"] in ids]
        (out / "data" / split / "annotations.json").write_text(json.dumps(part))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(RECIPES), required=True)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--share", type=float, default=0.2, help="of the labels (default: 0.2)")
    parser.add_argument("--few-teachers", action="store_true", help="also teachers that saw that share alone")
    parser.add_argument("--out", type=Path, default=Path("runs/distill-gain"))
    arguments = parser.parse_args()
    study = Study(arguments.task, RECIPES[arguments.task], arguments.out)
    seeds = range(1, arguments.seeds + 1)
    rows: dict[str, list[dict[str, float]]] = {}
    with listening(lambda *_: None):
        rows["teacher, all labels"] = [study.teacher_accuracy(1.0, seed) for seed in seeds]
        print(_line("teacher, all labels", rows["teacher, all labels"]), flush=True)
        for condition in conditions(arguments.share, few_teachers=arguments.few_teachers):
            rows[condition.name] = [study.accuracy(condition, seed) for seed in seeds]
            print(_line(condition.name, rows[condition.name]), flush=True)
    result = {
        "task": arguments.task,
        "seeds": list(seeds),
        "share": arguments.share,
        "recipe": vars(study.recipe),
        "rows": rows,
        "environment": describe(),
    }
    write_json_atomic(arguments.out / f"{arguments.task}.json", result)


def _line(name: str, found: list[dict[str, float]]) -> str:
    metric = next(iter(found[0]))
    values = [one[metric] for one in found]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    each = ", ".join(f"{value:.3f}" for value in values)
    return f"| {name} | {metric} {statistics.mean(values):.4f} ± {spread:.4f} | {each} |"


if __name__ == "__main__":
    main()
