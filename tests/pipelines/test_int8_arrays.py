"""`hasten int8 --calibration`: a model that is no detector, calibrated with arrays."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.int8_file import Wishes, quantize_file

CHANNELS, SIDE, CLASSES = 64, 24, 10


def write_classifier(path, *, outlier=1.0):
    """Three convolutions and a linear layer; `outlier` scales one channel up, and the next layer scales it down."""
    rng = np.random.default_rng(0)
    shapes = {"a": (CHANNELS, 3, 3, 3), "b": (CHANNELS, CHANNELS, 3, 3), "c": (CHANNELS, CHANNELS, 3, 3)}
    weights = {name: rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape) for name, shape in shapes.items()}
    weights["a"][3] *= outlier
    weights["b"][:, 3] /= outlier
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    linear = rng.normal(0, 1, (CHANNELS, CLASSES)).astype(np.float32)
    constants.append(numpy_helper.from_array(linear, "linear"))
    nodes, before = [], "image"
    for name in shapes:
        nodes.append(helper.make_node("Conv", [before, name], [f"{name}_y"], name=f"conv_{name}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"{name}_y"], [f"{name}_r"], name=f"relu_{name}"))
        before = f"{name}_r"
    nodes.append(helper.make_node("GlobalAveragePool", [before], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    nodes.append(helper.make_node("MatMul", ["flat", "linear"], ["scores"], name="linear_layer"))
    value = helper.make_tensor_value_info
    inputs = [value("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    graph = helper.make_graph(nodes, "g", inputs, [value("scores", TensorProto.FLOAT, [1, CLASSES])], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(0, 1, (24, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture
def hasten(monkeypatch, capsys):
    """The command line in this process: exit code, stdout, stderr."""
    import pipelines.cli.steps  # noqa: F401

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["hasten", *map(str, arguments)])
        code = errors.run(app)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def labels_of(model, images):
    """What FP32 says, so that its accuracy is 1."""
    session = onnxruntime.InferenceSession(str(model))
    return np.array([session.run(None, {"image": image[None]})[0].argmax() for image in images])


@pytest.mark.slow
def test_placements_are_timed_and_the_best_is_written(tmp_path, images, hasten):
    model = write_classifier(tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", image=images, labels=labels_of(model, images))
    out = tmp_path / "out"
    command = ["int8", str(model), "--calibration", str(tmp_path / "x.npz"), "--runtime", "openvino", "--threads", "1"]
    command += ["--metric", "top1", "--max-accuracy-drop", "0.2", "--rounds", "3", "--calibration-time", "1", "--json"]
    code, said, _ = hasten(*command, "--out", out)
    result = json.loads(said)
    assert result == json.loads((out / "int8_result.json").read_text())
    rows = {row["id"]: row for row in result["rows"]}
    pairs, fp32 = rows["openvino-pairs-symmetric"], rows["openvino-fp32"]
    assert {"openvino-nncf-mixed", "openvino-nncf-performance", "openvino-pairs-asymmetric"} < set(rows)
    assert all(row["p50_ms"] > 0 for row in rows.values())
    assert fp32["over_fp32"]["ratio"] == pytest.approx(1)
    assert 15 < pairs["sqnr_db"] < 60
    assert result["fp32_accuracy"] == 1
    assert code == (0 if result["met"] else 3)
    pick = result["pick"]
    if result["met"]:  # on every machine with INT8 instructions
        assert pick["accuracy"] >= 0.8
        assert pick["file"].startswith(str(out))
        assert pick["bytes"] < 0.5 * model.stat().st_size
    else:
        assert pick["id"] == "openvino-fp32"
    # Nothing else is left in the folder.
    assert {path.name for path in out.iterdir()} <= {"int8_result.json", *(row["id"] for row in rows.values())}


def test_layers_are_restored_until_the_accuracy_is_there(tmp_path, images):
    model = write_classifier(tmp_path / "model.onnx", outlier=300.0)
    np.savez(tmp_path / "x.npz", image=images)
    plain = quantize_file(model, tmp_path / "x.npz", tmp_path / "plain", Wishes([Runtime.TENSORRT_RTX]))["pick"]
    assert plain["sqnr_db"] < 20
    wishes = Wishes([Runtime.TENSORRT_RTX], min_sqnr=25)
    restored = quantize_file(model, tmp_path / "x.npz", tmp_path / "restored", wishes)["pick"]
    assert restored["sqnr_db"] >= 25
    assert "conv_b" in restored["facts"]["restored"]
    assert len(restored["facts"]["restored"]) < 4
    assert "conv_b" in restored["reason"]
    assert "not timed" in restored["reason"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metric", "top1"], "no array `labels`"),
        (["--metric", "f1"], "accepted: sqnr, top1"),
        (["--max-accuracy-drop", "0.1"], "needs --metric top1"),
        (["--annotations", "a.json"], "cannot be given with --annotations"),
        (["--runtime", "tflite"], "--runtime: given 'tflite'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, images, hasten, arguments, words):
    model = write_classifier(tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", image=images[:4])
    given = ["int8", str(model), "--calibration", str(tmp_path / "x.npz"), "--out", str(tmp_path / "out")]
    code, _, said = hasten(*given, *arguments)
    assert code == 2
    assert words in said
    assert said.count("hasten: ") == 1
    assert not (tmp_path / "out").exists()


def test_nothing_to_calibrate_with(tmp_path, hasten):
    model = write_classifier(tmp_path / "model.onnx")
    code, _, said = hasten("int8", model, "--out", tmp_path / "out")
    assert code == 2
    assert "--calibration samples.npz" in said


def test_wrong_metric_without_labels(tmp_path, images):
    np.savez(tmp_path / "x.npz", image=images)
    with pytest.raises(UserError, match="labels"):
        quantize_file(
            write_classifier(tmp_path / "model.onnx"),
            tmp_path / "x.npz",
            tmp_path / "out",
            Wishes([Runtime.OPENVINO], metric="top1"),
        )
