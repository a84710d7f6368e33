"""The rung on tiny data: the grid, what it drops and why, a bundle of the winner; mistakes of a job."""

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from components.core.contracts.job import Family, Job, Task
from components.core.contracts.training import TrainingCard
from components.core.contracts.variant import Status
from components.core.errors import UserError
from components.core.models import load_torch_model
from components.core.training.bundle import write_weights
from components.export.run import run_export
from components.family.build import FACTORY, build
from components.family.catalogue import DETECTORS, PRESETS, expand
from components.family.classifiers import PRESETS as CLASSIFIERS
from components.family.classifiers import architecture, expand_classifiers
from components.family.entrants import default_sizes, entrants
from components.family.run import run_family
from components.fetch.run import run_fetch
from fixtures.labelled import labelled_fields, write_first_weights
from fixtures.search_jobs import make_bundle

ROOT = Path(__file__).parents[3]
QUICK: dict[str, Any] = {"probe_rounds": 3, "probe_round_time": "0.05 s", "probe_int8": False, "halving_rounds": 1}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.slow
def test_the_grid_is_probed_and_the_best_of_the_few_is_handed_on(tmp_path):
    # Nothing is as fast as 0.1 ms but within so much slack; the smaller of two sizes is trained.
    job, bundle = make_bundle(
        tmp_path / "job",
        training={"epochs": 2, "batch": 2, "learning_rate": 0.001, "validation": 0.3, "precision": "fp32"},
        family=QUICK | {"candidates": ["yolox-n", "ssdlite-small"], "input_sizes": [[96, 96], [64, 64]], "keep": 1},
    )
    card, recipe = run_family(job, bundle, tmp_path / "out")
    assert card.status is Status.OK, card.reason
    search = card.search
    assert search is not None
    outcomes = {entry.id: entry.outcome for entry in search.entries}
    names = ["yolox-n-96x96", "yolox-n-64x64", "ssdlite-small-96x96", "ssdlite-small-64x64"]
    assert list(outcomes) == names
    assert sorted(outcomes.values()) == ["dropped"] * 3 + ["winner"]
    probes = {entry.id: entry.probe for entry in search.entries}
    assert all(probe.latency_ms and probe.speedup and probe.parameters for probe in probes.values())
    assert probes[search.winner].speedup.ratio == max(probe.speedup.ratio for probe in probes.values())
    for entry in search.entries:
        assert entry.reason.startswith("not among the 1" if entry.outcome == "dropped" else "among the fastest")
    assert card.techniques == ["family", search.winner]
    assert TrainingCard.read(tmp_path / "out") == card

    # The winner's bundle is what every later step takes, at its own input size.
    model, _, side = search.winner.rpartition("-")
    assert recipe.model.factory == FACTORY
    assert recipe.model.kwargs["model"] == model
    assert "x".join(map(str, recipe.target.input_shape[2:])) == side
    load_torch_model(recipe.model, tmp_path / "out" / "model")
    manifest = run_export(recipe, tmp_path / "out", tmp_path / "exported")
    assert manifest.input_shape == recipe.target.input_shape
    assert job.target.input_shape == (1, 3, 96, 96)


def test_a_goal_that_nothing_meets_trains_nothing_and_says_so(tmp_path):
    job, bundle = make_bundle(
        tmp_path / "job",
        goal={"min_speedup": "100000x", "max_accuracy_drop": 1.0},
        family=QUICK | {"candidates": ["yolox-n"], "input_sizes": [[64, 64]]},
    )
    card, given = run_family(job, bundle, tmp_path / "out")
    assert card.status is Status.FAILED
    assert given == job
    assert "yolox-n-64x64: cannot meet the goal: speed-up" in card.reason
    assert card.search is not None
    assert card.search.limits == ["min_speedup 100000x"]


def test_the_grid_is_every_model_at_every_size(tmp_path):
    job, bundle = make_bundle(tmp_path / "job", family={"candidates": ["yolo9-t", "yolo9-[st]"]})
    found = entrants(job, bundle)
    sizes = default_sizes(96, 96)
    assert sizes == [(96, 96), (64, 64)]
    assert [one.id for one in found] == [f"yolo9-{size}-{h}x{w}" for size in "ts" for h, w in sizes]
    for one in found:
        assert one.job.target.input_shape[2:] == one.size
        assert one.job.model.kwargs == {
            "model": one.id.rpartition("-")[0],
            "classes": 1,
            "height": one.size[0],
            "width": one.size[1],
            "first_label": 1,
        }


def test_first_weights_are_the_seeds_or_those_that_were_given(tmp_path):
    weights = tmp_path / "weights"
    torch.manual_seed(3)
    trained = build("yolox-n", 5, 64, 64)
    write_weights(trained, weights / "yolox-n.safetensors")
    write_weights(build("ssdlite-small", 5, 64, 64), weights / "yolox-t.safetensors")
    job, bundle = make_bundle(
        tmp_path / "job",
        family={"candidates": ["yolox-n", "yolox-t", "yolo9-t"], "input_sizes": [[64, 64]], "pretrained": str(weights)},
    )
    first, other, missing = entrants(job, bundle)
    facts = first.prepare(tmp_path / "first.safetensors")
    assert facts.family == "yolox at 64 x 64"
    own = load_torch_model(first.job.model.model_copy(update={"weights": "first.safetensors"}), tmp_path).state_dict()
    given = trained.state_dict()
    assert torch.equal(
        own["network.backbone.backbone.stem.conv.conv.weight"], given["network.backbone.backbone.stem.conv.conv.weight"]
    )
    assert own["network.head.cls_preds.0.weight"].shape[0] == 1, "the classes are the data's"
    with pytest.raises(UserError, match="weights for yolox-t are of another model"):
        other.prepare(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"family.pretrained: .*yolo9-t.safetensors does not exist"):
        missing.prepare(tmp_path / "missing.safetensors")


@pytest.mark.slow
def test_a_classifier_is_swapped_for_one_of_timm(tmp_path):
    family = QUICK | {"candidates": ["timm/lcnet_035", "timm/mobilenetv3_small_05*"], "keep": 1}
    training = {"epochs": 2, "batch": 8, "learning_rate": 0.003, "flip": False, "precision": "fp32"}
    fields = labelled_fields(Task.CLASSIFICATION, tmp_path / "job", family=family, training=training)
    fields["goal"] = {"max_p50": "10 s", "metric": "accuracy", "max_accuracy_drop": 1.0}
    fields["target"]["runtimes"] = ["onnxruntime"]
    job = Job.model_validate(fields)
    write_first_weights(Task.CLASSIFICATION, tmp_path / "job" / "weights.safetensors")
    run_fetch(job, tmp_path / "bundle")
    assert [one.id for one in entrants(job, tmp_path / "bundle")] == [
        "timm-lcnet_035-28x28", "timm-mobilenetv3_small_050-28x28",
    ]  # fmt: skip
    card, recipe = run_family(job, tmp_path / "bundle", tmp_path / "out")
    assert card.status is Status.OK, card.reason
    assert card.search is not None
    assert sorted(entry.outcome for entry in card.search.entries) == ["dropped", "winner"]
    assert all(entry.probe.latency_ms for entry in card.search.entries)
    assert set(card.accuracy_after or {}) == {"accuracy", "macro_f1"}
    model = load_torch_model(recipe.model, tmp_path / "out" / "model")
    assert model(torch.rand(2, 3, 28, 28)).shape == (2, 10)


def test_names_of_classifiers():
    assert expand_classifiers([], "cpu") == list(CLASSIFIERS["cpu"])
    assert expand_classifiers(["timm/resnet1[08]", "timm/resnet18"], "cpu") == ["timm/resnet18"]
    known = {f"timm/{name}" for name in timm.list_models()}
    assert {name for names in CLASSIFIERS.values() for name in names} <= known
    with pytest.raises(UserError, match=r"given 'resnet18', which nothing is called; accepted for a classifier: timm/"):
        expand_classifiers(["resnet18"], "cpu")
    with pytest.raises(UserError, match="at most 100 are accepted"):
        expand_classifiers(["timm/*"], "cpu")
    assert architecture("timm/mobilenetv3_small_050") == architecture("timm/mobilenetv3_small_100")
    assert architecture("timm/mobilenetv3_small_100") != architecture("timm/mobilenetv3_large_100")


def test_other_tasks_are_skipped_with_what_is_accepted(tmp_path):
    job = Job.model_validate(labelled_fields(Task.TEXT, tmp_path / "job"))
    with pytest.raises(UserError, match="task: text has no families to search among; accepted: detection, class"):
        entrants(job, tmp_path)


def test_names_patterns_and_presets():
    assert expand([], "cpu") == list(PRESETS["cpu"])
    assert expand([], "cuda:0") == list(PRESETS["gpu"])
    assert expand(["efficientdet-*", "yolo9-t", "efficientdet-d0"], "cpu") == [
        "efficientdet-d0", "efficientdet-d1", "efficientdet-d2", "yolo9-t",
    ]  # fmt: skip
    known = {f"{family}-{size}" for family, sizes in DETECTORS.items() for size in sizes}
    assert {name for names in PRESETS.values() for name in names} <= known
    with pytest.raises(
        UserError, match=r"family.candidates: given 'yolov5\*', which nothing is called; accepted: yolo9-t"
    ):
        expand(["yolov5*"], "cpu")


def test_a_size_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"is no .height, width. of 8..8192 pixels each"):
        Family(input_sizes=[(4, 64)])
