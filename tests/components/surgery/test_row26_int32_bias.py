"""Row 26: INT32 through DequantizeLinear."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, assert_untouched, make_model, needs_rtx, ops, rtx, surgered, worst

INT32 = TensorProto.INT32


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("channels", [1, 5])
def test_a_constant_becomes_the_floats_that_it_stands_for(dtype, channels):
    opset = 19 if dtype == np.float16 else 17  # float16 scales came with opset 19
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("DequantizeLinear", ["b", "scale"], ["real"], axis=0),
        helper.make_node("Add", ["x", "real"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.001, 0.1, channels).astype(dtype)
    constants = {"b": rng.integers(-1000, 1000, 5).astype(np.int32), "scale": scale}
    if channels == 1:
        nodes[0] = helper.make_node("DequantizeLinear", ["b", "scale"], ["real"])
        constants["scale"] = scale.reshape(())
    before = make_model(nodes, {"x": (kind, [2, 5])}, {"y": (kind, [2, 5])}, constants, opset=opset)
    after = surgered(before)
    assert ops(after) == {"Add"}
    assert worst(before, after, [{"x": rng.standard_normal((2, 5)).astype(dtype)}]) == 0


def test_a_constant_output_stays_an_output():
    node = helper.make_node("DequantizeLinear", ["b", "scale"], ["y"])
    before = make_model([node], {}, {"y": (FLOAT, [2])}, {"b": np.array([3, -4], np.int32), "scale": np.float32(0.5)})
    after = surgered(before)
    assert ops(after) == {"Identity"}
    assert worst(before, after, [{}]) == 0


@needs_rtx
def test_computed_integers_are_multiplied():
    nodes = [
        helper.make_node("Add", ["x", "x"], ["sum"]),
        helper.make_node("DequantizeLinear", ["sum", "scale"], ["y"], axis=1),
    ]
    scale = {"scale": np.array([0.5, 0.25, 2], np.float32)}
    before = make_model(nodes, {"x": (INT32, [2, 3])}, {"y": (FLOAT, [2, 3])}, scale)
    assert rtx(before).stage == "reject"
    after = surgered(before)
    assert rtx(after)[::2] == ("ok", 0)
    x = np.random.default_rng(0).integers(-99, 99, (2, 3)).astype(np.int32)
    assert worst(before, after, [{"x": x}]) == 0


def test_int8_is_untouched():
    node = helper.make_node("DequantizeLinear", ["w", "scale"], ["y"])
    constants = {"w": np.zeros(3, np.int8), "scale": np.float32(1)}
    assert_untouched(make_model([node], {}, {"y": (FLOAT, [3])}, constants), 26)
