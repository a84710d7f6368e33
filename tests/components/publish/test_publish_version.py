import json
import math
from pathlib import Path
from typing import Any

import pytest
from triton_schema import parse_config

from components.core.contracts.job import Runtime, Task
from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import StepError
from components.core.files import sha256_file
from components.publish.signature import Signature, Tensor, read_signature
from components.publish.triton import config_pbtxt
from components.publish.version import Version, make_version
from fixtures.published import make_board, make_job, make_report, save_model

DETECTOR = Signature(
    (Tensor("image", "FP32", (1, 3, 64, 64)),),
    (Tensor("boxes", "FP32", (100, 4)), Tensor("scores", "FP32", (100,)), Tensor("labels", "INT64", (100,))),
)


def version_of(tmp_path: Path, board: Leaderboard, text: str = "report", **job: Any) -> Version:
    report = make_report(tmp_path / f"report-{text}", text)
    return make_version(make_job("file:///x", **job), board, board.row("int8"), report)


def text_of(version: Version, path: str) -> str:
    content = version.files[path]
    assert isinstance(content, bytes)
    return content.decode()


def test_files_of_a_version(tmp_path: Path) -> None:
    version = version_of(tmp_path, make_board(tmp_path / "int8"), threads=2)
    evidence = version.manifest.report
    assert evidence.startswith("evidence-")
    assert set(version.files) == {
        "model_repository/trees/config.pbtxt",
        "model_repository/trees/1/model.onnx",
        f"{evidence}/model_card.md",
        f"{evidence}/report.html",
        f"{evidence}/leaderboard.json",
    }
    assert [file.path for file in version.manifest.files] == sorted(version.files)
    assert version.manifest.labels == {1: "tree"}
    assert version.manifest.model == "model_repository/trees/1/model.onnx"
    config = text_of(version, "model_repository/trees/config.pbtxt")
    assert config == (
        'name: "trees"\n'
        'backend: "onnxruntime"\n'
        'default_model_filename: "model.onnx"\n'
        "max_batch_size: 0\n"
        "input [\n"
        '  { name: "image", data_type: TYPE_FP32, dims: [ 1, 3, 64, 64 ] }\n'
        "]\n"
        "output [\n"
        '  { name: "boxes", data_type: TYPE_FP32, dims: [ 100, 4 ] },\n'
        '  { name: "scores", data_type: TYPE_FP32, dims: [ 100 ] },\n'
        '  { name: "labels", data_type: TYPE_INT64, dims: [ 100 ] }\n'
        "]\n"
        "instance_group [ { kind: KIND_CPU, count: 1 } ]\n"
        "parameters {\n"
        '  key: "intra_op_thread_count"\n'
        '  value: { string_value: "2" }\n'
        "}\n"
    )


def test_the_model_card(tmp_path: Path) -> None:
    version = version_of(tmp_path, make_board(tmp_path / "int8"))
    card = text_of(version, version.manifest.model_card)
    for line in (
        f"Version `{version.manifest.version}`, made by hasten from `user_models:detector`: surgery, int8.",
        "| | this model | as it was (PyTorch eager) |",
        "| latency p50 | 10.0 ms | 30.0 ms |",
        "| speed-up, p50 | 3.00x (95% CI 2.90x to 3.10x) |  |",
        "| mAP50 | 0.410 | 0.420 |",
        "- Model file: `model_repository/trees/1/model.onnx`; `model_repository/` is a model repository for Triton "
        "Inference Server.",
        "- Input `image`: FP32 [1, 3, 64, 64]",
        "- Output `labels`: INT64 [100]",
        "- Labels: 1 tree",
        r"- cpu: a CPU \| with a bar",
        "- onnxruntime: 1.32",
    ):
        assert line in card.splitlines()
    assert "\n\n\n\n" not in card


def test_the_version_is_about_what_is_served(tmp_path: Path) -> None:
    first = version_of(tmp_path, make_board(tmp_path / "a"))
    again = version_of(tmp_path, make_board(tmp_path / "b", p50=11), "other timings")
    assert again.manifest.version == first.manifest.version
    assert again.manifest.report != first.manifest.report
    others = [
        version_of(tmp_path, make_board(tmp_path / "c", seed=1)),
        version_of(tmp_path, make_board(tmp_path / "d"), threads=1),
        version_of(tmp_path, make_board(tmp_path / "e"), name="shrubs"),
    ]
    board = make_board(tmp_path / "f")
    rows = [row.model_copy(update={"options": {"hint": "f32"}}) for row in board.candidates]
    others.append(version_of(tmp_path, board.model_copy(update={"candidates": rows})))
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text()) | {"labels": {"1": "shrub"}}
    board = make_board(tmp_path / "g")
    (tmp_path / "g" / "manifest.json").write_text(json.dumps(manifest))
    others.append(version_of(tmp_path, board))
    assert len({version.manifest.version for version in [first, *others]}) == 6


def test_external_data_goes_along(tmp_path: Path) -> None:
    folder = tmp_path / "int8" / "deep"
    folder.mkdir(parents=True)
    save_model(folder / "m.onnx", location="w.bin")
    version = version_of(tmp_path, make_board(tmp_path / "int8", file="deep/m.onnx"))
    assert {"model_repository/trees/1/model.onnx", "model_repository/trees/1/w.bin"} < set(version.files)
    (folder / "w.bin").unlink()
    with pytest.raises(StepError, match=r"needs w\.bin, which is not beside it"):
        version_of(tmp_path, make_board(tmp_path / "int8", file="deep/m.onnx"))


def test_an_openvino_model(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    (tmp_path / "int8").mkdir()
    save_model(tmp_path / "source.onnx")
    openvino.save_model(
        openvino.convert_model(tmp_path / "source.onnx"), tmp_path / "int8" / "m.xml", compress_to_fp16=False
    )
    board = make_board(tmp_path / "int8", runtime=Runtime.OPENVINO, file="m.xml")
    version = version_of(tmp_path, board)
    assert {"model_repository/trees/1/model.xml", "model_repository/trees/1/model.bin"} < set(version.files)
    assert read_signature(tmp_path / "int8" / "m.xml", Task.DETECTION, (1, 3, 64, 64)) == DETECTOR
    assert 'backend: "openvino"' in text_of(version, "model_repository/trees/config.pbtxt")
    (tmp_path / "int8" / "m.bin").unlink()
    with pytest.raises(StepError, match=r"needs m\.bin"):
        version_of(tmp_path, board)


@pytest.mark.parametrize(
    ("runtime", "path"),
    [(Runtime.TENSORRT, "model_repository/trees/1/model.plan"), (Runtime.TENSORRT_RTX, "model/model.engine")],
)
def test_an_engine(tmp_path: Path, runtime: Runtime, path: str) -> None:
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8" / "m.engine").write_bytes(b"an engine")
    two = read_signature(tmp_path / "int8" / "m.engine", Task.DETECTION, (2, 3, 64, 64))
    assert [tensor.shape for tensor in two.outputs] == [(2, 100, 4), (2, 100), (2, 100)]
    version = version_of(tmp_path, make_board(tmp_path / "int8", runtime=runtime, file="m.engine"))
    assert version.manifest.model == path
    card = text_of(version, version.manifest.model_card)
    assert ("Triton Inference Server has no backend" in card) == (runtime is Runtime.TENSORRT_RTX)
    assert ("model_repository/trees/config.pbtxt" in version.files) == (runtime is Runtime.TENSORRT)


@pytest.mark.parametrize("runtime", [Runtime.TENSORRT, Runtime.TENSORRT_RTX])
def test_an_engine_has_its_onnx_file_as_fallback(tmp_path: Path, runtime: Runtime) -> None:
    folder = tmp_path / "int8"
    folder.mkdir()
    (folder / "m.engine").write_bytes(b"an engine")
    save_model(folder / "model.onnx", location="model.onnx.data")
    save_model(folder / "other.onnx", seed=3)
    card = {
        "module": "tensorrt", "version": "11.0", "compute_capabilities": ["8.9"], "layers": {"x": 1},
        "onnx_sha256": sha256_file(folder / "model.onnx"),
    }  # fmt: skip
    board = make_board(folder, runtime=runtime, file="m.engine")
    rows = [
        row.model_copy(update={"details": {"engine": card}}) if row.id == "int8" else row for row in board.candidates
    ]
    board = board.model_copy(update={"candidates": rows, "environment": {"gpu": "NVIDIA L4"}})
    version = version_of(tmp_path, board)
    manifest = version.manifest
    assert manifest.fallback == "fallback_repository/trees/1/model.onnx"
    assert version.files[manifest.fallback] == folder / "model.onnx"
    assert version.files["fallback_repository/trees/1/model.onnx.data"] == folder / "model.onnx.data"
    config = parse_config(text_of(version, "fallback_repository/trees/config.pbtxt"))
    assert (config.name, config.backend, config.default_model_filename) == ("trees", "onnxruntime", "model.onnx")
    assert manifest.engine is not None
    assert {name: manifest.engine[name] for name in ("module", "version", "compute_capabilities", "gpu")} == {
        "module": "tensorrt",
        "version": "11.0",
        "compute_capabilities": ["8.9"],
        "gpu": "NVIDIA L4",
    }
    if runtime is Runtime.TENSORRT:  # a client of one is a client of the other
        engine = parse_config(text_of(version, "model_repository/trees/config.pbtxt"))
        assert [(one.name, one.data_type, list(one.dims)) for one in (*engine.input, *engine.output)] == [
            (one.name, one.data_type, list(one.dims)) for one in (*config.input, *config.output)
        ]
    # Without the ONNX file there is none, and a file that the engine was not built from is none either.
    (folder / "model.onnx").unlink()
    assert version_of(tmp_path, board).manifest.fallback is None


def test_a_model_that_is_not_the_measured_one(tmp_path: Path) -> None:
    board = make_board(tmp_path / "int8")
    save_model(tmp_path / "int8" / "m.onnx", seed=9)
    with pytest.raises(StepError, match=r"m\.onnx has sha256 .* was measured; run again"):
        version_of(tmp_path, board)
    (tmp_path / "int8" / "m.onnx").unlink()
    with pytest.raises(StepError, match="is gone; run again"):
        version_of(tmp_path, board)


def test_a_winner_without_a_file(tmp_path: Path) -> None:
    board = make_board(tmp_path / "int8")
    for update in ({"file": None}, {"uri": None}, {"uri": "/no/such"}, {"file": "../m.onnx"}):
        rows = [row.model_copy(update=update) for row in board.candidates]
        with pytest.raises(StepError, match="int8"):
            version_of(tmp_path, board.model_copy(update={"candidates": rows}))


def test_types_and_shapes_in_the_configuration() -> None:
    job = make_job(None)
    target = job.target.model_copy(update={"device": "cuda:1"})
    signature = Signature((Tensor('odd "name"', "FP16", (-1, 3)),), (Tensor("out", "BOOL", ()),))
    text = config_pbtxt("trees", "model.plan", Runtime.TENSORRT, signature, target)
    assert 'platform: "tensorrt_plan"' in text
    assert r'name: "odd \"name\"", data_type: TYPE_FP16, dims: [ -1, 3 ]' in text
    assert "kind: KIND_GPU, count: 1, gpus: [ 1 ]" in text
    assert math.prod(DETECTOR.outputs[0].shape) == 400
