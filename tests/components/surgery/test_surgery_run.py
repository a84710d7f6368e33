"""The step on folders: from what `export` writes to a model file a runtime, and the words when it cannot."""

import importlib
import json

import numpy as np
import pytest
from onnx import helper
from surgery_graphs import FLOAT, make_model, needs_rtx, ops, rtx
from test_row12_nms import nms_model
from test_row14_roi_align import roi_model

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import SOURCES, Manifest, Status, Variant
from components.core.errors import UserError
from components.core.onnx_files import load_onnx, save_onnx
from components.core.onnx_wire import signature
from components.export.run import run_export
from components.surgery import run as surgery_run
from components.surgery.run import run_surgery
from components.surgery.surgery import Options
from fixtures.jobs import make_bundle, make_job

RUNTIMES = ["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "torch"]


def job(*runtimes) -> Job:
    split = {"annotations": "/a.json", "images": "/i"}
    return Job.model_validate(
        {
            "name": "test",
            "model": {"onnx": "/m.onnx"},
            "data": {"train": split, "test": split},
            "target": {"runtimes": list(runtimes or RUNTIMES), "input_shape": [1, 3, 96, 96]},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.1},
        }
    )


def exported(folder, models, *, sources=True, ids=("canonical", "trimmed")):
    where = folder / SOURCES if sources else folder
    variants = []
    for name, model in zip(ids, models, strict=False):
        file = f"{name}.onnx"
        if model is not None:
            save_onnx(model, where / file)
        variants.append(
            Variant(
                id=name,
                runtime=Runtime.ONNXRUNTIME,
                techniques=["candidate-trim"] if name == "trimmed" else [],
                status=Status.OK if model is not None else Status.FAILED,
                reason="" if model is not None else "no parity",
                file=file if model is not None else None,
                details={"parity": {"agrees": True}},
            )
        )
    manifest = Manifest(task="detection", input_shape=(1, 3, 96, 96), labels={1: "tree"}, variants=variants)
    manifest.write(where)
    return folder


def test_each_runtime_gets_the_form_it_needs(tmp_path):
    model = nms_model(1, 1, 12, 0.5)
    manifest = run_surgery(job(), exported(tmp_path / "in", [model]), tmp_path / "out")
    assert manifest == Manifest.read(tmp_path / "out")
    assert manifest.labels == {1: "tree"}
    rows = {variant.id: variant for variant in manifest.variants}
    assert list(rows) == [f"surgery-{runtime}" for runtime in RUNTIMES]
    for runtime in ("tensorrt", "tensorrt-rtx"):
        after = load_onnx(tmp_path / "out" / runtime / "model.onnx")
        assert "NonMaxSuppression" not in ops(after)
        assert rows[f"surgery-{runtime}"].file == f"{runtime}/model.onnx"
        assert 12 in rows[f"surgery-{runtime}"].details["surgery"]["rows"]
        assert rows[f"surgery-{runtime}"].details["parity"] == {"agrees": True}
    for runtime in ("onnxruntime", "openvino"):
        assert load_onnx(tmp_path / "out" / runtime / "model.onnx") == model
        verdicts = rows[f"surgery-{runtime}"].details["surgery"]["verdict"]
        assert verdicts["before"] == verdicts["after"]  # untouched, so asked once
        assert verdicts["after"]["parses"]
    assert rows["surgery-torch"].status is Status.SKIPPED
    assert {tuple(variant.techniques) for variant in manifest.variants} == {("surgery",)}
    report = json.loads((tmp_path / "out" / "surgery_report.json").read_text())
    assert report["surgery-tensorrt"]["records"][0]["surgery"] == "NonMaxSuppression"
    assert "| 12 | NonMaxSuppression | nms | done |" in (tmp_path / "out" / "surgery_report.md").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*RUNTIMES[:4], "manifest.json", "surgery_report.json", "surgery_report.md"]
    )


def test_every_source_gets_variants_of_its_own_and_a_failed_one_stays_failed(tmp_path):
    folder = exported(tmp_path / "in", [None, nms_model(1, 1, 8, 0.5)])
    rows = {variant.id: variant for variant in run_surgery(job("tensorrt"), folder, tmp_path / "out").variants}
    assert rows["surgery-tensorrt"].status is Status.FAILED
    assert rows["surgery-tensorrt"].reason == "no parity"
    assert rows["surgery-tensorrt-trimmed"].techniques == ["candidate-trim", "surgery"]
    assert rows["surgery-tensorrt-trimmed"].file == "tensorrt-trimmed/model.onnx"


def test_without_sources_the_canonical_or_the_only_file_is_taken(tmp_path):
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})
    for number, ids in enumerate((("stock", "canonical"), ("stock",))):
        folder = exported(tmp_path / f"in{number}", [model] * len(ids), sources=False, ids=ids)
        (variant,) = run_surgery(job("openvino"), folder, tmp_path / f"out{number}").variants
        assert variant.id == "surgery-openvino"
    folder = exported(tmp_path / "two", [model, model], sources=False, ids=("one", "two"))
    with pytest.raises(UserError, match="lists 2 ONNX files"):
        run_surgery(job("openvino"), folder, tmp_path / "out")


def test_what_was_left_is_in_the_reason(tmp_path):
    model = roi_model(1, 2, 8, 8, 4, samples=0)
    folder = exported(tmp_path / "in", [model])
    (variant,) = run_surgery(job("tensorrt"), folder, tmp_path / "out").variants
    assert "RoiAlign at pool: sampling_ratio is 0" in variant.reason
    assert variant.status is Status.OK
    (given,) = run_surgery(job("tensorrt"), folder, tmp_path / "given", Options(sampling_ratio=2)).variants
    assert given.details["surgery"]["rows"] == [14]


def test_open_dimensions_take_the_jobs_shape_for_tensorrt(tmp_path):
    sizes = ["n", 3, "h", "w"]
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, sizes)}, {"y": (FLOAT, sizes)})
    folder = exported(tmp_path / "in", [model])
    run_surgery(job("tensorrt-rtx", "openvino"), folder, tmp_path / "out")
    shapes = {
        name: signature(tmp_path / "out" / name / "model.onnx")[0][0].shape for name in ("tensorrt-rtx", "openvino")
    }
    assert shapes == {"tensorrt-rtx": (1, 3, 96, 96), "openvino": (-1, 3, -1, -1)}


def test_a_damaged_file_is_the_users_to_mend(tmp_path):
    folder = exported(tmp_path / "in", [nms_model(1, 1, 8, 0.5)])
    path = folder / SOURCES / "canonical.onnx"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="truncated or no ONNX model"):
        run_surgery(job(), folder, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


CRASHING = """
import json, os, signal, sys
from pathlib import Path

from components.surgery.worker import main

request = json.loads(Path(sys.argv[1]).read_text())
if request["onnx"].endswith("canonical.onnx"):
    request["tasks"] = request["tasks"][:1]
    Path(sys.argv[1]).write_text(json.dumps(request))
main(Path(sys.argv[1]), Path(sys.argv[2]))
if request["onnx"].endswith("canonical.onnx"):
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_native_crash_costs_only_what_comes_after_it(tmp_path, monkeypatch):
    (tmp_path / "crashing_worker.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(surgery_run, "WORKER", "crashing_worker")
    folder = exported(tmp_path / "in", [nms_model(1, 1, 8, 0.5)] * 2)
    manifest = run_surgery(job("openvino", "tensorrt"), folder, tmp_path / "out")
    rows = {variant.id: variant for variant in manifest.variants}
    assert rows["surgery-openvino"].status is Status.OK
    assert rows["surgery-tensorrt"].status is Status.FAILED
    assert rows["surgery-tensorrt"].reason.startswith("surgery failed: its process crashed with SIGSEGV")
    assert rows["surgery-tensorrt"].file is None
    assert rows["surgery-tensorrt-trimmed"].status is Status.OK


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A small torchvision Faster R-CNN through `export` and surgery."""
    folder = tmp_path_factory.mktemp("detector")
    made = make_job(folder)
    bundle = make_bundle(folder)
    run_export(made, bundle, folder / "exported")
    manifest = run_surgery(made, folder / "exported", folder / "surgered")
    return folder, manifest


def test_a_faster_rcnn_comes_out_static(detector):
    folder, manifest = detector
    variants = {variant.id: variant for variant in manifest.variants}
    assert variants["surgery-tensorrt-rtx"].status is Status.OK
    assert variants["surgery-tensorrt-rtx"].reason == ""
    summary = variants["surgery-tensorrt-rtx"].details["surgery"]
    assert {0, 12, 14} <= set(summary["rows"])
    assert summary["left"] == []
    assert summary["max_error"] < 1e-5
    before = load_onnx(folder / "exported" / SOURCES / "canonical.onnx")
    native = load_onnx(folder / "surgered" / "openvino" / "model.onnx")
    static = load_onnx(folder / "surgered" / "tensorrt-rtx" / "model.onnx")
    assert {"NonMaxSuppression", "RoiAlign"} <= ops(before)
    assert {"NonMaxSuppression", "RoiAlign"} <= ops(native)
    assert {"NonMaxSuppression", "RoiAlign", "ScatterElements", "If", "NonZero"}.isdisjoint(ops(static))


def test_a_faster_rcnn_detects_the_same(detector):
    from components.export.parity import compare, run_onnx

    folder, _ = detector
    rng = np.random.default_rng(0)
    images = [rng.random((1, 3, 12, 12), np.float32).repeat(8, 2).repeat(8, 3) for _ in range(3)]
    expected = run_onnx(folder / "exported" / SOURCES / "canonical.onnx", images)
    for runtime in ("openvino", "onnxruntime", "tensorrt-rtx"):
        parity = compare(expected, run_onnx(folder / "surgered" / runtime / "model.onnx", images))
        assert parity.agrees
        assert parity.detections > 10


@needs_rtx
def test_the_parser_is_asked_before_and_after(detector):
    _, manifest = detector
    variants = {variant.id: variant for variant in manifest.variants}
    verdicts = variants["surgery-tensorrt-rtx"].details["surgery"]["verdict"]
    assert (verdicts["before"]["parses"], verdicts["after"]["parses"]) == (False, True)
    assert verdicts["after"]["builds"] is None  # the step `engine` builds next
    assert verdicts["before"]["findings"] >= 1
    assert ": " in verdicts["before"]["first"][0]


@needs_rtx
def test_a_faster_rcnn_builds_in_tensorrt_only_after_surgery(detector):
    folder, _ = detector
    assert rtx(load_onnx(folder / "exported" / SOURCES / "canonical.onnx")).stage == "reject"
    assert rtx(load_onnx(folder / "surgered" / "tensorrt-rtx" / "model.onnx"))[::2] == ("ok", 0)


def test_the_component_runs_the_step(tmp_path):
    surgery = importlib.import_module("components.surgery.component").surgery
    folder = exported(tmp_path / "in", [nms_model(1, 1, 8, 0.5)])

    class Surgered:
        path, uri = str(tmp_path / "out"), f"file://{tmp_path / 'out'}"

    body = surgery.python_func
    assert body(job("tensorrt").model_dump_json(), str(folder), "v1", Surgered) == Surgered.uri
    assert Manifest.read(tmp_path / "out").variants[0].id == "surgery-tensorrt"
