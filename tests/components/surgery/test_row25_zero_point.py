"""Row 25: zero points of Q/DQ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType
from quantized_nets import engine_layers, images, static
from surgery_graphs import FLOAT, RTX, assert_untouched, make_model, needs_rtx, ops, rtx, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

UINT8, INT8 = TensorProto.UINT8, TensorProto.INT8


def pair(zero, scale=0.02, before=(), shape=("n", 6)):
    """x -> nodes of `before` -> Q -> DQ -> y."""
    scale, zero = np.float32(scale), np.asarray(zero)
    source = before[-1].output[0] if before else "x"
    axis = {"axis": 1} if zero.ndim else {}
    nodes = [
        *before,
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], ["q"], name="quantize", **axis),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **axis),
    ]
    constants = {"scale": np.broadcast_to(scale, zero.shape).copy(), "zero": zero}
    return make_model(nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, shape)}, constants)


def constants_of(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def zero_points(model):
    """Every zero point that is not int8 0."""
    known = constants_of(model)
    nodes = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    values = [known[node.input[2]] for node in nodes]
    return [value for value in values if value.dtype != np.int8 or value.any()]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(np.uint8, 0, 255), (np.int8, -128, 127)]),
    st.integers(0, 255),
    st.floats(1e-3, 10),
    st.integers(0, 2**32 - 1),
)
def test_any_zero_point_moves_numbers_by_at_most_both_half_steps(kind, place, scale, seed):
    dtype, low, high = kind
    zero = dtype(low + place)
    before = pair(zero, scale)
    after = surgered(before, only=[25])
    assert zero_points(after) == []
    wide = max((int(zero) - low) / 128, (high - int(zero)) / 127)
    # As far out as twice the range: both saturate at the same values.
    x = np.random.default_rng(seed).uniform(-2, 2, (7, 6)).astype(np.float32) * np.float32(scale) * 255
    old, new = (Model(model)({"x": x})["y"] for model in (before, after))
    step = np.float32(scale)
    assert np.abs(old - new).max() <= (step + step * max(wide, 1)) / 2 * 1.001


def test_uint8_with_zero_point_128_is_int8_exactly():
    before = pair(np.uint8(128))
    after = surgered(before, only=[25])
    assert zero_points(after) == []
    x = np.random.default_rng(0).uniform(-5, 5, (50, 6)).astype(np.float32)
    assert worst(before, after, [{"x": x}]) == 0
    assert ops(after) == {"QuantizeLinear", "DequantizeLinear"}


def test_one_zero_point_a_channel():
    before = pair(np.array([0, 128, 7, 255, 100, 1], np.uint8))
    after = surgered(before, only=[25])
    assert zero_points(after) == []
    x = np.random.default_rng(0).uniform(-8, 8, (20, 6)).astype(np.float32)
    assert worst(before, after, [{"x": x}]) < 0.01


def test_a_relu_that_the_quantizer_dropped_comes_back():
    after = surgered(pair(np.uint8(0)), only=[25])
    assert "Relu" in ops(after)
    assert Model(after)({"x": np.full((1, 6), -1, np.float32)})["y"].max() == 0


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Softmax"])
def test_a_tensor_that_cannot_be_negative_needs_no_relu(op):
    before = pair(np.uint8(0), before=[helper.make_node(op, ["x"], ["bounded"])])
    after = surgered(before, only=[25])
    assert [node.op_type for node in after.graph.node] == [op, "QuantizeLinear", "DequantizeLinear"]


def test_uint8_taken_for_int8_in_silence_is_repaired():
    """TensorRT-RTX accepts uint8 with zero point 0, and its Q layer gives int8: half of the range would be lost."""
    after = surgered(pair(np.uint8(0)), only=[25])
    assert zero_points(after) == []
    x = np.full((1, 6), 5.0, np.float32)  # 250 steps
    np.testing.assert_allclose(Model(after)({"x": x})["y"], 5.0, rtol=0.01)


def layer(op, weights, zero, scale, axis, **attributes):
    rank = weights.ndim
    given = [2, weights.shape[1 if op == "Conv" else 0], *([5] * (rank - 2))]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["real"], name="weights", axis=axis),
        helper.make_node(op, ["x", "real"], ["y"], **attributes),
    ]
    constants = {"w": weights, "scale": np.asarray(scale, np.float32), "zero": zero}
    return make_model(nodes, {"x": (FLOAT, given)}, {"y": (FLOAT, None)}, constants)


def test_weights_that_fit_keep_their_numbers_and_others_get_a_scale_of_their_own():
    rng = np.random.default_rng(0)
    weights = rng.integers(40, 200, (4, 3, 3, 3)).astype(np.uint8)
    weights[2, 0, 0, 0] = 255  # 155 above the zero point
    before = layer("Conv", weights, np.uint8(100), 0.01, 0)
    after = surgered(before)
    known = constants_of(after)
    (node,) = [node for node in after.graph.node if node.op_type == "DequantizeLinear"]
    quantized, scale = known[node.input[0]], known[node.input[1]]
    assert quantized.dtype == np.int8
    np.testing.assert_array_equal(quantized[[0, 1, 3]], weights[[0, 1, 3]].astype(int) - 100)
    np.testing.assert_allclose(scale, np.array([0.01, 0.01, 0.01 * 155 / 127, 0.01]), rtol=1e-6)
    assert worst(before, after, [{"x": rng.standard_normal((2, 3, 5, 5)).astype(np.float32)}]) < 0.01


@pytest.mark.parametrize(("op", "axis", "attributes"), [("Gemm", 1, {}), ("MatMul", 1, {}), ("Gemm", 0, {"transB": 1})])
def test_weights_of_a_linear_layer_are_split_along_their_outputs(op, axis, attributes):
    weights = np.random.default_rng(0).integers(0, 256, (6, 6)).astype(np.uint8)
    before = layer(op, weights, np.uint8(90), 0.01, 0, **attributes)
    after = surgered(before)
    (node,) = [node for node in after.graph.node if node.op_type == "DequantizeLinear"]
    assert constants_of(after)[node.input[1]].shape == (6,)
    assert [attribute.i for attribute in node.attribute] == [axis]
    assert worst(before, after, [{"x": np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)}]) < 0.01


def test_integers_that_leave_and_enter_the_graph_stay_what_the_caller_knows():
    nodes = [
        helper.make_node("DequantizeLinear", ["given", "scale", "zero"], ["real"]),
        helper.make_node("Add", ["real", "x"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "scale", "zero"], ["made"], name="out"),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.uint8(40)}
    inputs = {"given": (UINT8, [3, 4]), "x": (FLOAT, [3, 4])}
    before = make_model(nodes, inputs, {"made": (UINT8, [3, 4])}, constants)
    after = surgered(before)
    assert "QuantizeLinear" not in ops(after)
    rng = np.random.default_rng(0)
    feed = {"given": rng.integers(0, 256, (3, 4)).astype(np.uint8), "x": rng.normal(0, 20, (3, 4)).astype(np.float32)}
    assert worst(before, after, [feed]) == 0


@needs_rtx
def test_integers_at_the_border_build():
    nodes = [helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["real"])]
    nodes += [helper.make_node("QuantizeLinear", ["real", "scale", "zero"], ["y"])]
    constants = {"scale": np.float32(0.1), "zero": np.uint8(40)}
    before = make_model(nodes, {"x": (UINT8, [3, 4])}, {"y": (UINT8, [3, 4])}, constants)
    assert rtx(before).stage == "reject"
    assert rtx(surgered(before))[::2] == ("ok", 0)


@needs_rtx
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_the_default_int8_of_onnx_runtime_becomes_int8_layers(form):
    before = static(activation_type=QuantType.QUInt8, quant_format=form)
    assert rtx(before).stage == "reject"
    after = surgered(before)
    layers = engine_layers(after)
    products = [layer for layer in layers if layer[0] in ("correlation", "gemm", "runtime_fusion")]
    assert len(products) == 4
    assert all(inputs[0] == "Int8" for _, _, inputs, _ in products)
    assert [layer[2] for layer in layers if layer[0] == "maxpool"] == [["Int8"]]
    assert worst(before, after, [images(np.random.default_rng(seed)) for seed in range(3, 9)]) < 0.03


def test_scales_at_run_time_are_refused():
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["scale"], keepdims=0),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    model = make_model(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}, {"zero": np.uint8(3)})
    after, report = operate(model, RTX, only=[25])
    assert after is model
    (record,) = report.records
    assert (record.outcome, record.node) == (Outcome.REFUSED, "quantize")
    assert "run time" in record.why


def test_symmetric_int8_is_untouched():
    assert_untouched(pair(np.int8(0)), 25)
    weights = np.zeros((2, 3, 3, 3), np.int8)
    assert_untouched(layer("Conv", weights, np.zeros(2, np.int8), np.ones(2), 0), 25)
