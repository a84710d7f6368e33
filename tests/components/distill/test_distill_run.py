"""The rung on tiny models of all four tasks: what it makes, reports, refuses and survives."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distill_jobs import HINTS, STUDENTS, classifier, make_bundle, make_job, save_weights

from components.core.contracts.job import ModelSource
from components.core.contracts.training import TRAINING_CARD, TrainingCard
from components.core.contracts.variant import Status
from components.core.models import call_factory, load_torch_model
from components.core.training.bundle import WEIGHTS
from components.distill.run import RUNG, run_distill
from components.fetch.card import FetchCard
from fixtures.detectors import tiny_faster_rcnn

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TASKS = ("detection", "classification", "text", "audio")
COUNTS = {"detection": (6, 2, 5), "classification": (9, 3, 6), "text": (9, 3, 5), "audio": (9, 3, 5)}
"""Samples with a label that are learnt from, held back, and without a label."""


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A cache of the test's own, and factories that other processes find."""
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(HERE)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("task", TASKS)
def test_a_students_bundle_takes_the_place_of_the_users(tmp_path, task):
    if task == "audio":
        pytest.importorskip("soundfile")
    settings = {"student": STUDENTS[task], "hints": [HINTS[task]], "compare": True}
    job, bundle = make_bundle(tmp_path / "job", task, settings)
    if (bundle / "data" / "test" / "images").exists():
        shutil.rmtree(bundle / "data" / "test" / "images")  # whatever it learns from, it is not this
    out = tmp_path / "out"
    card, recipe = run_distill(job, bundle, out)
    assert (card.status, card.rung, card.reason) == (Status.OK, RUNG, "")
    assert card == TrainingCard.read(out)
    assert card.made_by == [RUNG]

    # The bundle: the student's weights, which the recipe's model takes, and the same data.
    assert recipe.model == ModelSource(
        factory=STUDENTS[task]["factory"], kwargs=STUDENTS[task].get("kwargs", {}), weights=WEIGHTS
    )
    assert recipe.distill is None
    trained = load_torch_model(recipe.model, out / "model").state_dict()
    before = call_factory(STUDENTS[task]["factory"], STUDENTS[task]["kwargs"]).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in trained.items())
    assert FetchCard.read(out).train == FetchCard.read(bundle).train
    assert FetchCard.read(out).model[0].sha256 == card.weights_sha256
    if task == "text":
        assert (out / "model" / "tokenizer.json").read_bytes() == (bundle / "model" / "tokenizer.json").read_bytes()

    # The card: from whom it learnt, and what that was good for.
    labelled, back, unlabelled = COUNTS[task]
    assert (card.trained_on, card.held_back) == (labelled, back)
    lessons = card.lessons
    assert lessons is not None
    assert (lessons.unlabelled, lessons.answers, lessons.answers_reused) == (
        unlabelled,
        labelled + back + unlabelled,
        0,
    )
    assert lessons.answers_bytes > 0
    assert card.steps == 2 * -(-(labelled + unlabelled) // 4)
    names = {"map50", "map"} if task == "detection" else {"accuracy", "macro_f1"}
    assert set(card.accuracy_after or {}) == set(lessons.teachers_accuracy or {}) == names
    assert set(lessons.accuracy_alone or {}) == names
    losses = card.epochs[-1]["losses"]
    assert losses["hint_1"] > 0
    if task != "detection":
        assert set(losses) == {"soft", "hard", "hint_1"}
    text = (out / "README.md").read_text()
    assert f"{labelled} with labels, {unlabelled} without, {back} held back" in text
    assert "of the student on labels alone" in text
    assert not list((tmp_path / "cache" / "training").iterdir())  # the checkpoints have done their duty


def test_a_student_comes_to_answer_as_its_teacher_does(tmp_path):
    # The teacher is no good at the task; the student can only know its opinions from its answers.
    settings = {"student": STUDENTS["classification"], "soft": 1.0, "hard": 0.0, "temperature": 1.0}
    job, bundle = make_bundle(
        tmp_path / "job", "classification", settings, epochs=150, learning_rate=0.02, flip=False, batch=16
    )
    card, recipe = run_distill(job, bundle, tmp_path / "out")
    assert card.epochs[-1]["losses"]["soft"] < card.epochs[0]["losses"]["soft"] / 5
    assert set(card.epochs[0]["losses"]) == {"soft"}
    student = load_torch_model(recipe.model, tmp_path / "out" / "model")
    teacher = load_torch_model(job.model, bundle / "model")
    images = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.3
    images[torch.arange(64), torch.arange(64) % 3] += 0.55  # like those that it learnt from
    with torch.no_grad():
        expected, said = (torch.softmax(model(images), dim=1) for model in (teacher, student))
    assert float((expected - said).abs().mean()) < 0.1


def test_what_was_answered_is_not_asked_again(tmp_path):
    settings = {"student": STUDENTS["classification"]}
    job, bundle = make_bundle(tmp_path / "job", "classification", settings)
    run_distill(job, bundle, tmp_path / "first")
    # Another student and temperature change nothing of what the teacher says.
    other = job.distill.model_copy(update={"temperature": 2.0})  # type: ignore[union-attr]
    card, _ = run_distill(job.model_copy(update={"distill": other}), bundle, tmp_path / "second")
    assert card.lessons is not None
    assert card.lessons.answers_reused == card.lessons.answers == 18
    # Other weights are another teacher.
    save_weights(tmp_path / "job" / "weights.pt", classifier(seed=3))
    job, bundle = make_bundle(tmp_path / "job", "classification", settings)
    card, _ = run_distill(job, bundle, tmp_path / "third")
    assert card.lessons is not None
    assert card.lessons.answers_reused == 0


def test_an_ensemble_of_any_runtimes_teaches(tmp_path):
    folder = tmp_path / "job"
    make_job(folder, "classification", {"student": STUDENTS["classification"]})
    model = classifier(seed=1)
    image = torch.rand(1, 3, 16, 16)
    torch.onnx.export(model.eval(), (image,), folder / "teacher.onnx", input_names=["image"], dynamo=True)
    torch.export.save(torch.export.export(classifier(seed=2).eval(), (image,)), folder / "teacher.pt2")
    teachers = [
        {"factory": "distill_jobs:classifier", "weights": str(folder / "weights.pt")},
        {"program": str(folder / "teacher.pt2")},
        {"onnx": str(folder / "teacher.onnx")},
        {"onnx": str(folder / "teacher.onnx"), "runtime": "openvino"},
    ]
    settings = {"student": STUDENTS["classification"], "teachers": teachers}
    job, bundle = make_bundle(folder, "classification", settings)
    card, _ = run_distill(job, bundle, tmp_path / "out")
    assert card.status is Status.OK, card.reason
    assert card.lessons is not None
    assert card.lessons.answers == 4 * 18
    assert len(card.lessons.teachers) == 4


def test_detectors_teach_together(tmp_path):
    folder = tmp_path / "job"
    make_job(folder, "detection", {"student": STUDENTS["detection"]})
    save_weights(folder / "second.pt", tiny_faster_rcnn(seed=3))
    factory = "fixtures.detectors:tiny_faster_rcnn"
    teachers = [{"factory": factory, "weights": str(folder / name)} for name in ("weights.pt", "second.pt")]
    settings = {"student": STUDENTS["detection"], "teachers": teachers, "unlabelled_share": 0.5, "min_score": 0.1}
    job, bundle = make_bundle(folder, "detection", settings)
    card, _ = run_distill(job, bundle, tmp_path / "out")
    assert card.status is Status.OK, card.reason
    assert card.lessons is not None
    assert card.lessons.answers == 2 * 13
    assert card.steps == 2 * 3  # six images with labels, five without and one of them twice


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        (None, "skipped", "the job names no student; give distill.student.factory, a smaller model with the same"),
        (
            {"student": {"factory": "distill_jobs:nobody"}},
            "failed",
            "model.factory distill_jobs:nobody: nobody does not",
        ),
        ({"hints": [{"student": "9", "teacher": "2"}]}, "failed", "distill.hints: the model has no part '9'"),
        (
            {"hints": [{"student": "2", "teacher": "9"}]},
            "failed",
            "distill.hints: teacher 0: the model has no part '9'",
        ),
        ({"student": {"factory": "distill_jobs:audio_net"}}, "failed", "distillation failed: "),
    ],
)
def test_what_cannot_be_taught_is_a_row_with_its_reason(tmp_path, changes, status, reason):
    settings = {"student": STUDENTS["classification"]} | (changes or {})
    job, bundle = make_bundle(tmp_path / "job", "classification", settings)
    job = job if changes else job.model_copy(update={"distill": None})
    card, recipe = run_distill(job, bundle, tmp_path / "out")
    assert (card.status, recipe.model) == (status, job.model)
    assert card.reason.startswith(reason)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TRAINING_CARD]


def test_a_student_with_other_classes_is_told_so(tmp_path):
    student = {"factory": "distill_jobs:text_net"}
    job, bundle = make_bundle(tmp_path / "job", "text", {"student": student})
    teacher = load_torch_model(job.model, bundle / "model")
    teacher.head = torch.nn.Linear(16, 5)
    assert job.distill is not None
    save_weights(tmp_path / "job" / "weights.pt", teacher)
    given = {"factory": "distill_jobs:text_net_of_five", "weights": str(tmp_path / "job" / "weights.pt")}
    job, bundle = make_bundle(tmp_path / "job", "text", {"student": student, "teachers": [given]})
    card, _ = run_distill(job, bundle, tmp_path / "out")
    assert card.status is Status.FAILED
    assert card.reason.startswith("distill.student: the student has 3 outputs and the teachers 5")


def test_pictures_that_are_held_back_are_not_learnt_from_as_unlabelled_ones(tmp_path):
    job, bundle = make_bundle(tmp_path / "job", "classification", {"student": STUDENTS["classification"]})
    shutil.rmtree(tmp_path / "job" / "unlabelled")
    shutil.copytree(tmp_path / "job" / "train", tmp_path / "job" / "unlabelled")  # a user may well do that
    job, bundle = make_bundle(tmp_path / "job", "classification", {"student": STUDENTS["classification"]})
    card, _ = run_distill(job, bundle, tmp_path / "out")
    assert card.lessons is not None
    assert (card.trained_on, card.held_back, card.lessons.unlabelled) == (9, 3, 9)


@pytest.mark.slow
def test_killed_in_the_middle_the_rung_ends_with_the_same_weights_to_the_bit(tmp_path):
    deaths = [random.randint(2, 4), random.randint(2, 3)]
    done = subprocess.run(
        [sys.executable, HERE / "distill_lives.py", tmp_path, ",".join(map(str, deaths))],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed by 9") == 3, done.stdout
    lives = [line for line in done.stdout.splitlines() if line.startswith("killed resumed")]
    assert lives == [f"killed resumed at {deaths[0] - 1} {sum(deaths) - 2}, 13 of 13 answers known"], deaths
    files = [int(line.split()[4]) for line in done.stdout.splitlines() if line.startswith("killed by")]
    # The first one was killed in the midst of a file; those that came before it are kept and not asked about again.
    assert 0 < files[0] < files[1] == files[2], done.stdout
    whole, killed = (tmp_path / name / "model" / WEIGHTS for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes(), deaths


@pytest.mark.slow
def test_two_processes_teach_together(tmp_path):
    settings = {"student": STUDENTS["classification"], "hints": [HINTS["classification"]]}
    job, bundle = make_bundle(tmp_path / "job", "classification", settings, processes=2, flip=False)
    card, _ = run_distill(job, bundle, tmp_path / "two")
    assert (card.status, card.reason, card.processes, card.steps) == ("ok", "", 2, 8)
    settings_alone = job.training.model_copy(update={"processes": 1})
    single, _ = run_distill(job.model_copy(update={"training": settings_alone}), bundle, tmp_path / "one")
    # Batch norms see half a batch each, so that the losses are near and not equal.
    sums = [sum(one.epochs[0]["losses"].values()) for one in (card, single)]
    assert sums[0] == pytest.approx(sums[1], rel=0.3)


def test_the_card_of_a_fetch_lists_what_a_student_learns_from(tmp_path):
    settings = {
        "student": STUDENTS["text"] | {"weights": str(tmp_path / "student.pt")},
        "teachers": [{"factory": "distill_jobs:text_net", "weights": str(tmp_path / "job" / "weights.pt")}],
    }
    from distill_jobs import text_net

    save_weights(tmp_path / "student.pt", text_net(8, 5))
    job, bundle = make_bundle(tmp_path / "job", "text", settings)
    card = FetchCard.read(bundle)
    assert card.lessons is not None
    assert [file.file for file in card.lessons.files] == ["student/student.pt", "teachers/0/weights.pt"]
    assert card.lessons.unlabelled is not None
    assert card.lessons.unlabelled.samples == 5
    assert json.loads((bundle / "data/unlabelled/annotations.json").read_text())["labels"] == ["c0", "c1", "c2"]
    trained, _ = run_distill(job, bundle, tmp_path / "out")
    assert trained.accuracy_before is not None  # it started from weights, which can be judged
