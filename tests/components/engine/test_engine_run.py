"""The step `engine` on folders: engines for TensorRT's variants, the others unchanged, reasons for the rest."""

import importlib
import json

import onnx
import pytest
from test_engine_build import needs_rtx, network, one_node

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import UserError
from components.core.tensorrt_tools import modules
from components.engine.card import EngineCard
from components.engine.run import run_engine

SHAPE = (1, 3, 32, 32)


def job(**target) -> Job:
    split = {"annotations": "/a.json", "images": "/i"}
    return Job.model_validate(
        {
            "name": "test",
            "model": {"onnx": "/m.onnx"},
            "data": {"train": split, "test": split},
            "target": {"runtimes": ["tensorrt-rtx"], "input_shape": SHAPE, **target},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.1},
        }
    )


@pytest.fixture
def models(tmp_path):
    """What a rung hands on: an ONNX file for TensorRT, one that does not build, OpenVINO's pair, and a failed one."""
    folder = tmp_path / "models"
    (folder / "int8-openvino").mkdir(parents=True)
    (folder / "int8-openvino" / "model.xml").write_text("<net/>")
    (folder / "int8-openvino" / "model.bin").write_bytes(b"weights")
    (folder / "int8-openvino" / "notes.txt").write_text("not a part of the model")
    for name, model in (
        ("int8-tensorrt-rtx", network(quantized=True)),
        ("stock", one_node("NonZero", {"x": (onnx.TensorProto.BOOL, [3, 4])})),
    ):
        (folder / name).mkdir()
        onnx.save_model(
            model,
            str(folder / name / "model.onnx"),
            save_as_external_data=name != "stock",
            location="model.onnx.data",
            size_threshold=0,
        )
    variants = [
        Variant(id="int8-openvino", runtime="openvino", techniques=["int8"], file="int8-openvino/model.xml"),
        Variant(
            id="int8-tensorrt-rtx",
            runtime="tensorrt-rtx",
            techniques=["int8"],
            file="int8-tensorrt-rtx/model.onnx",
            details={"int8": {"layers": 1}},
        ),
        Variant(id="stock", runtime="tensorrt-rtx", techniques=[], file="stock/model.onnx"),
        Variant(id="lost", runtime="tensorrt", techniques=[], status=Status.FAILED, reason="no calibration"),
    ]
    Manifest(task="detection", input_shape=SHAPE, labels={1: "tree"}, variants=variants).write(folder)
    return folder


@needs_rtx
def test_engines_are_built_and_the_others_go_on(models, tmp_path):
    out = tmp_path / "out"
    manifest = run_engine(job(compute_capabilities=["8.9"]), models, out)
    assert manifest == Manifest.read(out)
    assert manifest.labels == {1: "tree"}
    built, stock, openvino, lost = (manifest.variants[index] for index in (1, 2, 0, 3))
    assert (built.status, built.file) == (Status.OK, "int8-tensorrt-rtx/model.engine")
    assert (out / built.file).stat().st_size > 1000
    card = EngineCard.model_validate(built.details["engine"])
    assert card == EngineCard.model_validate_json((out / built.id / "engine_card.json").read_text())
    assert card.compute_capabilities == ["8.9"]
    assert built.details["int8"] == {"layers": 1}
    assert onnx.load(str(out / built.id / "model.onnx")) == onnx.load(str(models / built.id / "model.onnx"))
    assert (stock.status, stock.file) == (Status.FAILED, None)
    assert stock.reason.startswith("no engine: NonZero 'tail/it': ")
    assert not (out / "stock" / "model.engine").exists()
    assert openvino == Manifest.read(models).variants[0]
    assert sorted(path.name for path in (out / "int8-openvino").iterdir()) == ["model.bin", "model.xml"]
    assert lost == Manifest.read(models).variants[3]
    json.dumps(manifest.model_dump(mode="json"))


def test_a_runtime_without_its_module_is_skipped(models, tmp_path, monkeypatch):
    monkeypatch.setattr(modules.importlib.util, "find_spec", lambda name: None)
    manifest = run_engine(job(), models, tmp_path / "out")
    skipped = manifest.variants[1]
    assert (skipped.status, skipped.file) == (Status.SKIPPED, None)
    assert (
        skipped.reason
        == "the Python module tensorrt_rtx is not installed here; it is in the extra hasten[tensorrt-rtx]"
    )
    assert manifest.variants[0].status is Status.OK


@needs_rtx
def test_a_capability_that_no_builder_knows_ends_the_step(models, tmp_path):
    with pytest.raises(UserError, match=r"does not build for 1\.0"):
        run_engine(job(compute_capabilities=["1.0"]), models, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@needs_rtx
def test_a_hang_costs_one_variant(models, tmp_path):
    manifest = run_engine(job(), models, tmp_path / "out", time_limit=0.05)
    assert "took longer than 0.05 s" in manifest.variants[1].reason
    assert manifest.variants[1].status is Status.FAILED
    assert manifest.variants[0].status is Status.OK


def test_the_component_runs_the_step(models, tmp_path):
    engine = importlib.import_module("components.engine.component").engine

    class Engines:
        path, uri = str(tmp_path / "out"), f"file://{tmp_path / 'out'}"

    assert engine.python_func(job().model_dump_json(), str(models), "v1", Engines) == Engines.uri
    assert len(Manifest.read(tmp_path / "out").variants) == 4
    assert Runtime.TENSORRT_RTX in {variant.runtime for variant in Manifest.read(tmp_path / "out").variants}
