"""Every classifier through every step of the ladder: what is found out about it is real, and told in its own words."""

import json

import pytest

from components.benchmark.run import run_benchmark
from components.core.contracts.job import Metric, Runtime, Task
from components.core.contracts.training import TrainingCard
from components.core.contracts.variant import Status
from components.engine.run import run_engine
from components.export.run import run_export
from components.fetch.card import FetchCard
from components.fetch.run import run_fetch
from components.fp16.run import run_fp16
from components.int8.run import run_int8
from components.leaderboard.finish import finish
from components.publish.signature import read_signature
from components.report.run import run_report
from components.surgery.run import run_surgery
from fixtures.labelled import trained_job

CLASSIFIERS = (Task.CLASSIFICATION, Task.TEXT, Task.AUDIO)
INPUTS = {
    Task.CLASSIFICATION: {"image"},
    Task.TEXT: {"input_ids", "attention_mask"},
    Task.AUDIO: {"audio"},
}
TRUTHS = {Task.CLASSIFICATION: "in truth 9", Task.TEXT: "in truth harbour", Task.AUDIO: "in truth high"}


@pytest.fixture(scope="module", params=CLASSIFIERS, ids=str)
def climbed(request, tmp_path_factory):
    """A job, its folder and its board, after fetch, export, surgery, int8, fp16, engine and benchmark."""
    task = request.param
    folder = tmp_path_factory.mktemp(str(task))
    job = trained_job(task, folder)
    bundle, exported = folder / "bundle", folder / "exported"
    run_fetch(job, bundle)
    run_export(job, bundle, exported)
    run_surgery(job, exported, folder / "surgered")
    run_int8(job, folder / "surgered", bundle, folder / "int8")
    run_fp16(job, folder / "surgered", bundle, folder / "fp16")
    board = run_benchmark(job, bundle, exported, None, "baseline", None, folder / "baseline")
    for rung in ("int8", "fp16"):
        run_engine(job, folder / rung, folder / f"{rung}-engines")
        models = folder / f"{rung}-engines"
        board = run_benchmark(job, bundle, exported, models, rung, board, folder / f"{rung}-measured")
    return job, folder, board


def test_every_form_is_measured_and_as_accurate_as_the_eager_model(climbed):
    _, _, board = climbed
    rows = {row.id: row for row in board.candidates}
    assert rows["eager"].accuracy.metric is Metric.ACCURACY
    assert rows["eager"].accuracy.value > 0.6
    exact = ("fp32-onnxruntime", "fp32-openvino")
    assert all(rows[name].accuracy.value == rows["eager"].accuracy.value for name in exact)
    for name in ("int8-onnxruntime", "int8-openvino"):
        assert rows[name].status is Status.OK, rows[name].reason
        assert rows[name].accuracy.drop < 0.15
        assert rows[name].details["int8"]["accuracy"]["fp32"] > 0.6
        assert Metric.MACRO_F1 in rows[name].other_accuracy


def test_engines_are_built_without_a_plugin(climbed):
    _, _, board = climbed
    rows = {row.id: row for row in board.candidates}
    for rung, kind in (("int8", "INT8"), ("fp16", "HALF")):
        row = rows[f"{rung}-{Runtime.TENSORRT_RTX}"]
        assert row.file, row.reason
        assert row.details["engine"]["plugins"] == 0
        assert row.details["engine"]["precisions"].get(kind), row.details["engine"]["precisions"]
        assert row.status is not Status.FAILED


def test_the_inputs_keep_their_names_into_the_engine(climbed):
    job, folder, board = climbed
    row = next(row for row in board.candidates if row.id == f"int8-{Runtime.TENSORRT_RTX}")
    signature = read_signature(folder / "int8-engines" / row.file, job.task, job.target.input_shape)
    assert {tensor.name for tensor in signature.inputs} == INPUTS[job.task]
    assert [tensor.name for tensor in signature.outputs] == ["logits"]


def test_the_report_shows_samples_with_their_classes(climbed):
    job, folder, board = climbed
    run_report(job, finish(board, job), folder / "bundle", folder / "report", "hasten run job.yaml")
    page = (folder / "report" / "report.html").read_text()
    assert TRUTHS[job.task] in page
    assert "<b>eager</b>: " in page
    assert "accuracy" in page
    assert "mAP" not in page
    if job.task is Task.TEXT:
        assert page.count("<blockquote>") == 8
    else:
        assert page.count('<img class="sample"') == 8


def test_the_bundle_is_described(climbed):
    _, folder, _ = climbed
    card = FetchCard.read(folder / "bundle")
    document = json.loads((folder / "bundle" / "data" / "test" / "annotations.json").read_text())
    assert card.test.samples == len(document["samples"])
    assert card.train.categories == dict(enumerate(document["labels"]))
    assert card.test.boxes == 0
    assert not TrainingCard.find(folder / "bundle")
