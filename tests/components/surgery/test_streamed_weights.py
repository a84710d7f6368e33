"""Models whose weights are in files: they pass through without being loaded, and come out the same."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from surgery_graphs import FLOAT, make_model, worst

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.onnx_files import load_onnx
from components.surgery import files
from components.surgery.files import read_model, write_model
from components.surgery.operate import operate, operate_apart
from components.surgery.report import SurgeryReport
from components.surgery.weights import SMALL, is_reference, restore, set_aside

SIDE = 64
"""Side of a weight in the small models: enough to be kept apart."""


def stack(path, layers, side, *, transposed=False, damage=None):
    """A chain of matrices in external data, with constants to fold; the sum of squares stays about the same."""
    data = path.with_name("weights.bin")
    rng, graph = np.random.default_rng(0), onnx.GraphProto(name="stack")
    x = "x"
    with data.open("wb") as stream:
        for number in range(layers):
            weight = TensorProto(
                name=f"w{number}", data_type=FLOAT, dims=[side, side], data_location=TensorProto.EXTERNAL
            )
            place = {"location": data.name, "offset": stream.tell(), "length": 4 * side * side}
            for key, value in place.items():
                weight.external_data.add(key=key, value=str(value))
            graph.initializer.append(weight)
            # Rows of one block, so that gigabytes of them are made in a second.
            block = (rng.standard_normal((8, side)) / side**0.5).astype(np.float32)
            stream.write(np.tile(block, (side // 8, 1)).tobytes())
            name = f"w{number}"
            if transposed:
                graph.node.append(helper.make_node("Transpose", [name], [f"t{number}"], perm=[1, 0]))
                name = f"t{number}"
            graph.node.append(helper.make_node("Constant", [], [f"half{number}"], value_float=0.5))
            graph.node.append(helper.make_node("MatMul", [x, name], [f"m{number}"]))
            graph.node.append(helper.make_node("Mul", [f"m{number}", f"half{number}"], [f"h{number}"]))
            x = f"h{number}"
    graph.input.append(helper.make_tensor_value_info("x", FLOAT, [1, side]))
    graph.output.append(helper.make_tensor_value_info(x, FLOAT, None))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if damage:
        damage(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def _everything_streamed(monkeypatch):
    monkeypatch.setattr(files, "STREAMED", 1)


def run_file(path, x):
    """What ONNX Runtime makes of a file."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.usefixtures("_everything_streamed")
@pytest.mark.parametrize("transposed", [False, True])
def test_the_file_that_comes_out_computes_the_same(tmp_path, transposed):
    given = stack(tmp_path / "model.onnx", 3, SIDE, transposed=transposed)
    skeleton, weights = read_model(given)
    after, report = operate_apart(skeleton, weights, Runtime.TENSORRT_RTX)
    assert [record.max_error for record in report.done] == [0]
    written = write_model(after, weights, tmp_path / "out" / "model.onnx")
    assert [path.name for path in written] == ["model.onnx", "model.onnx.data"]
    assert {node.op_type for node in load_onnx(written[0]).graph.node} == {"MatMul", "Mul"}
    x = np.random.default_rng(0).standard_normal((1, SIDE)).astype(np.float32)
    np.testing.assert_allclose(run_file(given, x), run_file(written[0], x), rtol=1e-6)


@pytest.mark.usefixtures("_everything_streamed")
def test_weights_are_read_when_something_asks_for_them_and_not_before(tmp_path):
    given = stack(tmp_path / "model.onnx", 2, SIDE)
    skeleton, weights = read_model(given)
    assert all(is_reference(tensor) for tensor in skeleton.graph.initializer)
    assert skeleton.ByteSize() < 2000
    whole = load_onnx(given)
    assert restore(skeleton, weights) == whole


@pytest.mark.usefixtures("_everything_streamed")
def test_a_model_without_a_pattern_comes_back_as_it_is(tmp_path):
    skeleton, weights = read_model(stack(tmp_path / "model.onnx", 2, SIDE))
    after, _ = operate_apart(skeleton, weights, Runtime.TENSORRT_RTX)
    again, report = operate_apart(after, weights, Runtime.TENSORRT_RTX)
    assert again is after
    assert report.records == []


def test_small_external_data_comes_out_in_one_file(tmp_path):
    skeleton, weights = read_model(stack(tmp_path / "model.onnx", 2, SIDE))
    assert [path.name for path in write_model(skeleton, weights, tmp_path / "out.onnx")] == ["out.onnx"]
    assert load_onnx(tmp_path / "out.onnx") == load_onnx(tmp_path / "model.onnx")


def entry(key, value):
    """Damage to the external data of the first tensor."""

    def damage(model):
        (found,) = [entry for entry in model.graph.initializer[0].external_data if entry.key == key]
        found.value = value

    return damage


@pytest.mark.usefixtures("_everything_streamed")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (entry("location", "../weights.bin"), "must be a file in the model's own folder"),
        (entry("location", "none.bin"), "is missing"),
        (entry("offset", str(10**9)), "is truncated"),
        (entry("length", "8"), "has 2 elements and not 4096"),
        (entry("offset", "-4"), "damaged external data"),
        (lambda model: model.graph.initializer[0].dims.append(2**50), "impossible shape"),
        (lambda model: setattr(model.graph.initializer[0], "data_type", 99), "unknown data type"),
    ],
)
def test_damaged_external_data_is_refused_without_loading_it(tmp_path, damage, words):
    given = stack(tmp_path / "model.onnx", 1, SIDE, damage=damage)
    with pytest.raises(UserError) as caught:
        read_model(given)
    assert words in str(caught.value)
    with pytest.raises(UserError):
        load_onnx(given)


def test_weights_in_memory_stay_equal_and_new_ones_are_written():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["m"]),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    before = make_model(nodes, {"x": (FLOAT, [1, SIDE])}, {"y": (FLOAT, [1, SIDE])}, {"w": weight})
    assert SIDE * SIDE > SMALL
    after, _ = operate(before, Runtime.TENSORRT_RTX)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    np.testing.assert_array_equal(values["w"], weight)
    np.testing.assert_array_equal(values["t"], weight.T)
    assert worst(before, after, [{"x": rng.standard_normal((1, SIDE)).astype(np.float32)}]) < 1e-6


@pytest.mark.usefixtures("_everything_streamed")
def test_the_opset_is_raised_without_the_weights(tmp_path):
    given = stack(tmp_path / "model.onnx", 2, SIDE, damage=lambda model: setattr(model.opset_import[0], "version", 12))
    skeleton, weights = read_model(given)
    after, report = operate_apart(skeleton, weights, Runtime.TENSORRT_RTX)
    assert {record.row for record in report.done} == {0, 41}
    assert all(is_reference(tensor) for tensor in after.graph.initializer if len(tensor.dims) > 1)
    write_model(after, weights, tmp_path / "out.onnx")
    x = np.random.default_rng(0).standard_normal((1, SIDE)).astype(np.float32)
    np.testing.assert_allclose(run_file(given, x), run_file(tmp_path / "out.onnx", x), rtol=1e-6)


def test_setting_weights_aside_and_back_changes_nothing():
    rng = np.random.default_rng(0)
    kinds = (np.float32, np.float16, np.float64, np.int8, np.int64, np.bool_, np.uint16)
    constants = {np.dtype(kind).name: rng.integers(0, 2, (SIDE, SIDE)).astype(kind) for kind in kinds}
    large = numpy_helper.from_array(rng.standard_normal((SIDE, SIDE)).astype(np.float32))
    nodes = [helper.make_node("Constant", [], ["c"], value=large), helper.make_node("Add", ["x", "c"], ["y"])]
    model = make_model(nodes, {"x": (FLOAT, [1])}, {"y": (FLOAT, None)}, constants)
    model.metadata_props.add(key="a", value="b")
    skeleton, weights = set_aside(model)
    assert skeleton.ByteSize() < 2000
    assert restore(skeleton, weights).SerializeToString(True) == model.SerializeToString(True)


def test_an_operator_that_wants_its_weights_as_initializers_is_compared_too():
    """ONNX Runtime's QLinearConv needs constant zero points, here more of them than stay in the graph."""
    channels = SMALL + 8
    constants = {
        "scale": np.array(0.1, np.float32),
        "zero": np.array(0, np.int8),
        "w": np.ones((channels, 1, 1, 1), np.int8),
        "scales": np.full(channels, 0.1, np.float32),
        "zeros": np.zeros(channels, np.int8),
    }
    nodes = [
        helper.make_node("Identity", ["scale"], ["same"]),
        helper.make_node("QuantizeLinear", ["x", "same", "zero"], ["q"]),
        helper.make_node("QLinearConv", ["q", "same", "zero", "w", "scales", "zeros", "scale", "zero"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "scale", "zero"], ["y"]),
    ]
    before = make_model(nodes, {"x": (FLOAT, [1, 1, 4, 4])}, {"y": (FLOAT, [1, channels, 4, 4])}, constants)
    _, report = operate(before, Runtime.TENSORRT_RTX, only=[0])
    assert [(record.max_error, record.note) for record in report.records] == [(0, "")]


MEASURED = """
import resource, sys
from pathlib import Path
from components.surgery.worker import main
main(Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(folder, model):
    """Largest resident set of a worker that operates on a file, in bytes, and its report."""
    folder.mkdir(exist_ok=True)
    task = {"runtime": "tensorrt-rtx", "file": str(folder / "out.onnx"), "report": str(folder / "report.json")}
    request = {"onnx": str(model), "nms_rounds": 32, "sampling_ratio": None, "tasks": [task]}
    request |= {"only": None, "skip": [], "inputs": []}
    (folder / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-c", MEASURED, str(folder / "request.json"), str(folder / "answer.json")]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert json.loads((folder / "answer.json").read_text()) == {}
    report = SurgeryReport.model_validate_json((folder / "report.json").read_text())
    return int(finished.stdout.split()[-1]), report


def growth(tmp_path, layers, side, *, transposed):
    """Peak memory of the worker beyond that on a tiny model, over the bytes of the model."""
    tiny, _ = peak(tmp_path / "tiny", stack(tmp_path / "tiny.onnx", 1, 8, transposed=transposed))
    given = stack(tmp_path / "large.onnx", layers, side, transposed=transposed)
    size = (tmp_path / "weights.bin").stat().st_size
    most, report = peak(tmp_path / "large", given)
    assert [record.max_error for record in report.done] == [0]
    x = np.random.default_rng(0).standard_normal((1, side)).astype(np.float32)
    if size < 2**30:
        np.testing.assert_allclose(run_file(given, x), run_file(tmp_path / "large" / "out.onnx", x), rtol=1e-5)
    # pytest keeps the folders of the last runs.
    for path in (tmp_path / "weights.bin", *(tmp_path / "large").glob("out.onnx*")):
        path.unlink()
    return (most - tiny) / size


@pytest.mark.parametrize(("transposed", "most"), [(False, 1.5), (True, 2.2)])
def test_memory_stays_below_twice_the_weights(tmp_path, transposed, most):
    """Weights that are only carried are in memory once; new ones, here every one transposed, once more."""
    assert growth(tmp_path, 36, 1448, transposed=transposed) < most


@pytest.mark.slow
def test_a_model_above_two_gigabytes_passes(tmp_path):
    assert growth(tmp_path, 9, 8192, transposed=False) < 2.2
