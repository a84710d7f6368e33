"""Real engines by tensorrt_rtx, and the words for what does not build."""

import importlib.util
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.files import sha256_file
from components.core.tensorrt_tools import modules
from components.core.tensorrt_tools.modules import missing_module
from components.engine import build as build_module
from components.engine.build import BuildError, build_engine

RTX = Runtime.TENSORRT_RTX
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (extra tensorrt-rtx)"
)
pytestmark = needs_rtx


def network(*, dtype=FLOAT, quantized=False, batch=1, side=16):
    """Conv -> Relu -> global mean -> Gemm."""
    rng = np.random.default_rng(0)
    np_dtype = helper.tensor_dtype_to_np_dtype(dtype)
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np_dtype),
        "v": rng.standard_normal((4, 5)).astype(np_dtype),
    }
    nodes = []
    x, w = "image", "w"
    if quantized:
        constants |= {"s": np.array(0.05, np.float32), "z": np.array(0, np.int8)}
        for tensor in (x, w):
            nodes.append(helper.make_node("QuantizeLinear", [tensor, "s", "z"], [f"{tensor}_q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{tensor}_q", "s", "z"], [f"{tensor}_d"]))
        x, w = "image_d", "w_d"
    nodes += [
        helper.make_node("Conv", [x, w], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["scores"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", dtype, [batch, 3, side, side])],
        [helper.make_tensor_value_info("scores", dtype, [batch, 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def write(tmp_path):
    def _write(model, name="model.onnx"):
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return _write


def refusal(write, model, tmp_path, **options):
    engine = tmp_path / "model.engine"
    with pytest.raises(BuildError) as caught:
        build_engine(RTX, write(model), engine, **options)
    assert not engine.exists()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_an_engine_and_its_card(write, tmp_path):
    onnx_file, engine = write(network()), tmp_path / "out" / "model.engine"
    card = build_engine(RTX, onnx_file, engine, ["8.6", "8.9"])
    assert engine.stat().st_size == card.size_bytes > 1000
    assert [path.name for path in engine.parent.iterdir()] == ["model.engine"]
    import tensorrt_rtx

    assert (card.module, card.version) == ("tensorrt_rtx", tensorrt_rtx.__version__)
    assert card.compute_capabilities == ["8.6", "8.9"]
    (image,), (scores,) = card.inputs, card.outputs
    assert (image.name, image.shape, image.type) == ("image", [1, 3, 16, 16], "FLOAT")
    assert (scores.name, scores.shape) == ("scores", [1, 5])
    assert card.precisions == {"FLOAT": 2}
    assert card.layers["CONVOLUTION"] == 1
    assert (card.quantize_layers, card.dequantize_layers, card.plugins) == (0, 0, 0)
    assert card.onnx_sha256 == sha256_file(onnx_file)
    assert card.timing_cache.startswith("none: TensorRT-RTX")
    assert card.build_seconds > 0


def test_precision_is_counted_from_the_graph(write, tmp_path):
    engine = tmp_path / "model.engine"
    half = build_engine(RTX, write(network(dtype=HALF)), engine)
    assert half.precisions == {"HALF": 2}
    int8 = build_engine(RTX, write(network(quantized=True)), engine)
    assert int8.precisions == {"INT8": 1, "FLOAT": 1}
    assert (int8.quantize_layers, int8.dequantize_layers) == (2, 2)
    assert int8.compute_capabilities == ["default"]


def test_external_weights_are_found(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save_model(network(), str(path), save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    assert build_engine(RTX, path, tmp_path / "model.engine").precisions == {"FLOAT": 2}


def test_an_open_batch_takes_the_jobs_shape(write, tmp_path):
    model = network(batch="n", side="s")
    card = build_engine(RTX, write(model), tmp_path / "shaped.engine", input_shape=[2, 3, 24, 24])
    assert card.inputs[0].shape == [2, 3, 24, 24]
    text = refusal(write, model, tmp_path, input_shape=[])
    assert text == "'image': the input has open dimensions [-1, 3, -1, -1]; fix them when exporting"


def test_an_unknown_compute_capability_is_the_users_to_mend(write, tmp_path):
    with pytest.raises(UserError) as caught:
        build_engine(RTX, write(network()), tmp_path / "model.engine", ["8.6", "3.5"])
    assert "tensorrt_rtx" in str(caught.value)
    assert "does not build for 3.5; accepted: " in str(caught.value)
    assert "8.6" in str(caught.value)


def one_node(op, inputs, constants=None, output=TensorProto.INT64, **attributes):
    graph = helper.make_graph(
        [helper.make_node(op, [*inputs, *(constants or {})], ["y"], name="tail/it", **attributes)],
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_node_that_does_not_parse_is_named_with_the_parsers_words(write, tmp_path):
    text = refusal(write, one_node("NonZero", {"x": (TensorProto.BOOL, [3, 4])}), tmp_path)
    assert text.startswith("NonZero 'tail/it': NonZero plugin")
    assert "NonZero plugin creator version 1 was not found in plugin registry" in text
    assert text.endswith("surgery row 15 replaces it when its mask's shape is fixed")


def test_a_layer_that_does_not_build_is_named_too(write, tmp_path):
    constants = {"m": np.array([10]), "t": np.array([0.5], np.float32)}
    inputs = {"b": (FLOAT, [1, 50, 4]), "s": (FLOAT, [1, 1, 50])}
    text = refusal(write, one_node("NonMaxSuppression", inputs, constants), tmp_path)
    assert text.startswith("NonMaxSuppression 'tail/it")
    assert "has no runners that implement it" in text
    assert "surgery row 12" in text


def test_an_operator_that_nobody_knows_is_named(write, tmp_path):
    text = refusal(write, one_node("Fancy", {"x": (FLOAT, [3])}, output=FLOAT), tmp_path)
    assert text.startswith("Fancy 'tail/it': ")
    assert "Plugin not found" in text


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_damaged_file_is_refused(write, tmp_path, part):
    path = write(network())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(BuildError):
        build_engine(RTX, path, tmp_path / "model.engine")


def test_mixed_types_are_refused_since_the_network_is_strongly_typed(write, tmp_path):
    model = network(dtype=HALF)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros((4, 5), np.float32), "v"))
    text = refusal(write, model, tmp_path)
    assert "head" in text or "MatMul" in text


def test_a_build_that_takes_too_long_is_stopped(write, tmp_path):
    assert "took longer than 0.05 s" in refusal(write, network(), tmp_path, time_limit=0.05)


WORKER = """
import os, signal, sys
print("building layer 7", file=sys.stderr, flush=True)
os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_crash_of_the_builder_is_a_reason(write, tmp_path, monkeypatch):
    (tmp_path / "crashing_builder.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(build_module, "WORKER", "crashing_builder")
    text = refusal(write, network(), tmp_path)
    assert "crashed with SIGSEGV; its last words: building layer 7" in text


def test_an_engine_with_a_plugin_is_refused(write, tmp_path, monkeypatch):
    """TensorRT-RTX has no plugin that runs without a GPU, so the card is given one."""
    real = build_module.run_apart

    def with_plugin(*arguments):
        answer = real(*arguments)
        answer["card"]["plugins"] = 1
        return answer

    monkeypatch.setattr(build_module, "run_apart", with_plugin)
    assert "1 of its layers are plugins" in refusal(write, network(), tmp_path)


TENSORRT = """
import tensorrt_rtx as _rtx
from tensorrt_rtx import *  # noqa: F403

__version__ = _rtx.__version__
"""


def test_the_module_tensorrt_goes_the_same_way_with_a_timing_cache(write, tmp_path, monkeypatch):
    """The real `tensorrt` needs a GPU; its API is that of tensorrt_rtx, which stands in under its name."""
    folder = tmp_path / "site" / "tensorrt"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(TENSORRT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    onnx_file = write(network())
    cards = [build_engine(Runtime.TENSORRT, onnx_file, tmp_path / "model.engine") for _ in range(2)]
    assert [card.module for card in cards] == ["tensorrt", "tensorrt"]
    assert [card.timing_cache for card in cards] == ["new", "reused"]
    (cache,) = (tmp_path / "cache" / "timing").iterdir()
    assert cache.name.startswith("tensorrt-")
    assert cache.stat().st_size > 0


def test_a_module_that_is_missing_is_said_with_where_it_is(monkeypatch):
    monkeypatch.setattr(modules.importlib.util, "find_spec", lambda name: None)
    assert missing_module(Runtime.TENSORRT) == (
        "the Python module tensorrt is not installed here; it is in the TensorRT image"
    )
    assert "hasten[tensorrt-rtx]" in missing_module(RTX)
