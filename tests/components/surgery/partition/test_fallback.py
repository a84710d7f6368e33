"""After surgery: a run plan beside the model where TensorRT refuses it as a whole, and nowhere else."""

import json

import partition_models as models
import pytest
from onnx import helper

from components.core.contracts.job import Job, Runtime
from components.core.contracts.run_plan import RUN_PLAN, RunPlan
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import StepError
from components.surgery.partition import fallback as fallback_module
from components.surgery.run import Choices, operate_file, run_surgery

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra tensorrt-rtx)")
RTX, ORT = Runtime.TENSORRT_RTX, Runtime.ONNXRUNTIME


def operated(model, folder, *targets, **choices):
    places = {target: folder / "out" / target for target in targets}
    return operate_file(models.saved(model, folder / "in"), places, folder / "work", Choices(**choices))


def test_what_no_surgery_fixes_gets_a_plan_for_tensorrt_only(tmp_path):
    results = operated(models.det_in_the_middle(), tmp_path, RTX, ORT)
    plan = RunPlan.read(tmp_path / "out" / RTX / "plan" / RUN_PLAN)
    assert [left.operator for left in plan.left] == ["Det"]
    assert results[RTX].report.plan == f"plan/run_plan.json: {plan.summary()}"
    assert plan.proof.max_error == 0
    assert results[ORT].report.plan == ""
    assert [path.name for path in (tmp_path / "out" / ORT).iterdir()] == ["model.onnx"]


def test_without_an_engine_part_there_is_no_plan(tmp_path):
    report = operated(models.nothing_supported(), tmp_path, RTX)[RTX].report
    assert report.plan == "no run plan: no part of it is worth an engine; use ONNX Runtime"
    assert not (tmp_path / "out" / RTX / "plan").exists()


@pytest.mark.parametrize("build", [True, False])
def test_a_model_that_tensorrt_takes_gets_none(build, tmp_path):
    results = operated(models.all_supported(), tmp_path, RTX, build=build)
    assert results[RTX].report.plan == ""
    assert [path.name for path in (tmp_path / "out" / RTX).iterdir()] == ["model.onnx"]


def suppression_of_open_boxes():
    """A NonMaxSuppression that parses and does not build, and that row 12 leaves since its boxes are not counted."""
    nodes = [
        models.conv("x", "c1"),
        helper.make_node("NonMaxSuppression", ["b", "s", "most"], ["kept"], name="nms"),
    ]
    inputs = models.IMAGE | {"b": (models.FLOAT, [1, "n", 4]), "s": (models.FLOAT, [1, 1, "n"])}
    return models.model_of(nodes, inputs, {"c1": models.FLOAT, "kept": models.INT64}, {"most": [5]})


def test_where_nothing_was_built_a_node_that_is_known_not_to_build_is_reason_enough(tmp_path):
    report = operated(suppression_of_open_boxes(), tmp_path, RTX, build=False)[RTX].report
    assert report.plan.startswith("plan/run_plan.json: 1 engine part with 1 of 2 nodes")


def test_a_search_that_fails_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def fails(*arguments, **options):
        (tmp_path / "out" / RTX / "plan").mkdir()
        raise StepError("the model could not be partitioned: its process crashed with SIGABRT")

    monkeypatch.setattr(fallback_module, "partition", fails)
    report = operated(models.unique_at_the_end(), tmp_path, RTX)[RTX].report
    assert report.plan == "no run plan: the model could not be partitioned: its process crashed with SIGABRT"
    assert not (tmp_path / "out" / RTX / "plan").exists()


def test_the_step_mentions_the_plan_in_row_and_report(tmp_path):
    split = {"annotations": "/a.json", "images": "/i"}
    job = Job.model_validate(
        {
            "name": "test",
            "model": {"onnx": "/m.onnx"},
            "data": {"train": split, "test": split},
            "target": {"runtimes": [RTX], "input_shape": [1, 3, 96, 96]},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.1},
        }
    )
    models.saved(models.two_branches(), tmp_path / "in")
    variant = Variant(id="canonical", runtime=ORT, techniques=[], file="model.onnx")
    Manifest(task="detection", input_shape=(1, 3, 96, 96), variants=[variant]).write(tmp_path / "in")
    (row,) = run_surgery(job, tmp_path / "in", tmp_path / "out").variants
    assert row.status is Status.OK
    assert "plan/run_plan.json: 2 engine parts with 8 of 9 nodes, the rest in ONNX Runtime" in row.reason
    assert row.details["surgery"]["plan"] in row.reason
    page = (tmp_path / "out" / "surgery_report.md").read_text()
    assert "- in parts: plan/run\\_plan.json: 2 engine parts" in page
    document = json.loads((tmp_path / "out" / "surgery_report.json").read_text())
    assert document[f"surgery-{RTX}"]["plan"].startswith("plan/run_plan.json")
