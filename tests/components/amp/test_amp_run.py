"""The rung on a real, tiny detector: what it makes, reports, refuses and survives."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from amp_jobs import FACTORY, TRAIN, make_bundle, paint_boxes

from components.amp import cost, run
from components.amp.run import RUNG, run_amp
from components.core.contracts.job import Job, ModelSource, Precision
from components.core.contracts.training import TRAINING_CARD, TrainingCard
from components.core.contracts.variant import Status
from components.core.models import load_torch_model, read_state_dict
from components.core.training.bundle import WEIGHTS
from components.fetch.card import FetchCard

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A cache of the test's own, and factories that the measuring processes find."""
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(HERE)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cost, "STEPS", 2)
    monkeypatch.setattr(cost, "ROUNDS", 1)


@pytest.fixture
def unmeasured(monkeypatch):
    """Leaves out the processes that measure a step, where a test is about something else."""
    monkeypatch.setattr(run, "measure_costs", lambda *_: (None, None))


def test_a_trained_bundle_takes_the_place_of_the_users(tmp_path):
    job, bundle = make_bundle(tmp_path / "job")
    before = read_state_dict(bundle / "model" / "weights.pt")
    shutil.rmtree(bundle / "data" / "test" / "images")  # whatever training looks at, it is not this
    out = tmp_path / "out"
    card, recipe = run_amp(job, bundle, out)
    assert (card.status, card.rung, card.reason) == (Status.OK, RUNG, "")
    assert card == TrainingCard.read(out)

    # The bundle: same data, other weights, which the recipe's model takes.
    fetched = FetchCard.read(out)
    assert fetched.train == FetchCard.read(bundle).train
    assert fetched.model[0].file == f"model/{WEIGHTS}"
    assert fetched.model[0].source == f"amp of {job.model.weights}"
    assert fetched.model[0].sha256 == card.weights_sha256
    assert card.source_sha256 == FetchCard.read(bundle).model[0].sha256
    assert (out / "data/train/annotations.json").read_bytes() == (bundle / "data/train/annotations.json").read_bytes()
    assert len(list((out / "data/train/images").iterdir())) == TRAIN
    assert recipe.model == ModelSource(factory=FACTORY, weights=WEIGHTS)
    assert recipe.training == Job.model_fields["training"].get_default(call_default_factory=True)
    module = load_torch_model(recipe.model, out / "model")
    after = module.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "data",
        "fetch_card.json",
        "model",
        TRAINING_CARD,
    ]
    assert "5 trained on, 2 held back to judge by; none of `test`" in (out / "README.md").read_text()

    # The card: measured against FP32, nothing made up.
    assert (card.trained_on, card.held_back) == (5, 2)
    assert card.precision is Precision.BF16
    assert (card.steps, card.planned_steps) == (6, 6)
    for measured in (card.fp32, card.mixed):
        assert measured is not None
        assert measured.step_ms is not None
        assert measured.step_ms > 0
        assert measured.steps == 2
        assert measured.peak_bytes is not None
        assert measured.peak_bytes > 50e6
    assert card.fp32 is not None
    assert card.fp32.precision is Precision.FP32
    assert card.step_speedup is not None
    assert card.memory_ratio is not None
    assert card.estimated_seconds is not None
    assert set(card.accuracy_before or {}) == set(card.accuracy_after or {}) == {"map50", "map"}
    assert [entry["epoch"] for entry in card.epochs] == [1, 2]
    assert set(card.epochs[0]["losses"]) == {
        "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg",
    }  # fmt: skip
    assert card.environment["torch"] == torch.__version__.partition("+")[0]
    assert "lightning-fabric" in card.environment
    assert not list((tmp_path / "cache" / "training").iterdir())  # the checkpoint has done its duty


def test_training_improves_what_is_held_back(tmp_path):
    job, bundle = make_bundle(tmp_path / "job", epochs=40, learning_rate=0.003, precision="fp32", flip=False)
    paint_boxes(bundle)
    card, _ = run_amp(job, bundle, tmp_path / "out")
    assert card.accuracy_before is not None
    assert card.accuracy_after is not None
    assert card.accuracy_after["map50"] > card.accuracy_before["map50"] + 0.1
    # FP32 has nothing to be compared with.
    assert card.mixed is card.step_speedup is None


def test_fp16_reports_the_way_of_its_loss_scale(tmp_path, unmeasured):
    job, bundle = make_bundle(tmp_path / "job", precision="fp16")
    card, _ = run_amp(job, bundle, tmp_path / "out")
    assert card.precision is Precision.FP16
    assert card.loss_scales[0][0] == 1
    assert all(step in range(1, 7) for step in card.skipped_steps)
    assert len(card.loss_scales) >= len(card.skipped_steps)
    assert "| loss scale | " in (tmp_path / "out" / "README.md").read_text()
    losses = [sum(entry["losses"].values()) for entry in card.epochs]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"onnx": "m.onnx"}, "skipped", "a .onnx file holds a model for inference alone; give model.factory with"),
        ({"program": "m.pt2"}, "skipped", "a .pt2 program holds a model for inference alone"),
        ({"factory": "amp_jobs:frozen"}, "skipped", "the model has no parameters that take a gradient"),
        (
            {"factory": "amp_jobs:silent"},
            "failed",
            "in training mode the model returned a list; expected a dict of losses",
        ),
        ({"factory": "amp_jobs:broken"}, "failed", "training failed: TypeError: 'NoneType' object is not callable"),
    ],
)
def test_what_cannot_be_trained_is_a_row_with_its_reason(tmp_path, unmeasured, changes, status, reason):
    job, bundle = make_bundle(tmp_path / "job")
    model = ModelSource(**(changes if "factory" not in changes else changes | {"weights": job.model.weights}))
    card, recipe = run_amp(job.model_copy(update={"model": model}), bundle, tmp_path / "out")
    assert (card.status, recipe.model) == (status, model)
    assert card.reason.startswith(reason)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [TRAINING_CARD]


def test_too_few_samples_are_a_row_with_its_reason(tmp_path, unmeasured):
    job, bundle = make_bundle(tmp_path / "job")
    annotations = bundle / "data" / "train" / "annotations.json"
    document = json.loads(annotations.read_text())
    document["images"] = document["images"][:1]
    annotations.write_text(json.dumps(document))
    card, _ = run_amp(job, bundle, tmp_path / "out")
    assert card.status is Status.SKIPPED
    assert card.reason.startswith("data.train has 1 samples; training needs at least 2")


def test_killed_in_the_middle_the_rung_ends_with_the_same_weights_to_the_bit(tmp_path):
    # A detector draws its samples of anchors and boxes at random; 9 steps, in FP16 with loss scaling.
    deaths = [random.randint(2, 5), random.randint(2, 4)]
    done = subprocess.run(
        [sys.executable, HERE / "amp_lives.py", tmp_path, ",".join(map(str, deaths))],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed by 9") == 2, done.stdout
    assert f"killed resumed at {deaths[0] - 1} {sum(deaths) - 2}\n" in done.stdout, deaths
    whole, killed = (tmp_path / name / "model" / WEIGHTS for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes(), deaths


def test_two_processes_train_together(tmp_path, unmeasured):
    job, bundle = make_bundle(tmp_path / "job", precision="fp32", processes=2, flip=False)
    card, _ = run_amp(job, bundle, tmp_path / "two")
    assert (card.status, card.reason, card.processes, card.steps) == ("ok", "", 2, 6)
    alone = job.model_copy(update={"training": job.training.model_copy(update={"processes": 1})})
    single, _ = run_amp(alone, bundle, tmp_path / "one")
    # The same batches; each process samples anchors of its own, so that the losses are near and not equal.
    sums = [sum(one.epochs[0]["losses"].values()) for one in (card, single)]
    assert sums[0] == pytest.approx(sums[1], rel=0.5)


def test_what_stops_several_processes_is_one_reason(tmp_path, unmeasured):
    job, bundle = make_bundle(tmp_path / "job", precision="fp32", processes=2, batch=3)
    card, _ = run_amp(job, bundle, tmp_path / "out")
    assert card.status is Status.FAILED
    assert "training.batch 3 cannot be shared by 2 processes alike; give a multiple of 2" in card.reason


@pytest.mark.gpu
def test_mixed_precision_is_not_slower_than_fp32_on_a_gpu(tmp_path, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no GPU: the step time in mixed precision cannot be compared with FP32's")
    monkeypatch.setattr(cost, "STEPS", 20)
    monkeypatch.setattr(cost, "ROUNDS", 3)
    job, bundle = make_bundle(tmp_path / "job", batch=4)
    card, _ = run_amp(job, bundle, tmp_path / "out")
    assert card.device == "cuda"
    assert card.step_speedup is not None
    # The tiny model is bound by launches, not by arithmetic; a large one gains.
    assert card.step_speedup > 0.7
