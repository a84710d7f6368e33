"""Row 28: Q/DQ pairs that no layer fuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxruntime.quantization import QuantType
from quantized_nets import engine_layers, images, static
from surgery_graphs import FLOAT, RTX, assert_untouched, make_model, needs_rtx, ops, rtx, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

CONSTANTS = {"scale": np.float32(0.02), "zero": np.int8(0)}


def pair(source, made):
    return [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{made} q"], name=f"quantize {made}"),
        helper.make_node("DequantizeLinear", [f"{made} q", "scale", "zero"], [made]),
    ]


def graph(nodes, shape=(1, 2, 6, 6), out=None, **constants):
    return make_model(nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, out)}, CONSTANTS | constants)


def weights(*shape):
    values = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
    return {"w": values}, helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["w real"])


def count(model, op="QuantizeLinear"):
    return sum(node.op_type == op for node in model.graph.node)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["Sigmoid", "Tanh", "Exp", "Softmax", "Neg"]), st.floats(1e-3, 1), st.integers(0, 2**31))
def test_taking_a_pair_out_moves_numbers_by_half_a_step(op, scale, seed):
    nodes = [helper.make_node(op, ["x"], ["a"]), *pair("a", "b"), helper.make_node("Abs", ["b"], ["y"])]
    before = graph(nodes, (3, 5), scale=np.float32(scale))
    after = surgered(before)
    assert count(after) == 0
    x = np.random.default_rng(seed).normal(0, 200 * scale, (3, 5)).astype(np.float32)
    old, new = (Model(model)({"x": x})["y"] for model in (before, after))
    assert np.abs(old - new).max() <= np.float32(scale) / 2 * 1.0001


def test_no_clip_where_the_range_holds_everything():
    nodes = [helper.make_node("Sigmoid", ["x"], ["a"]), *pair("a", "b"), helper.make_node("Abs", ["b"], ["y"])]
    assert ops(surgered(graph(nodes, (3, 5)))) == {"Sigmoid", "Identity", "Abs"}


@pytest.mark.parametrize("between", ["", "MaxPool", "Relu"])
def test_pairs_of_a_quantized_convolution_stay(between):
    constants, dequantize = weights(3, 2, 3, 3)
    nodes = [*pair("x", "a"), dequantize]
    if between:
        attributes = {"kernel_shape": [1, 1]} if between == "MaxPool" else {}
        nodes.append(helper.make_node(between, ["a"], ["moved"], **attributes))
    nodes += [helper.make_node("Conv", ["moved" if between else "a", "w real"], ["c"]), *pair("c", "d")]
    nodes += [helper.make_node("Sigmoid", ["d"], ["y"])]
    assert_untouched(graph(nodes, **constants), 28)


def test_a_pair_before_unquantized_weights_goes():
    nodes = [*pair("x", "a"), helper.make_node("Conv", ["a", "w"], ["y"])]
    before = graph(nodes, w=np.ones((3, 2, 3, 3), np.float32))
    after, report = operate(before, RTX, only=[28])
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert count(after) == 0


@pytest.mark.parametrize("after_scale", [0.02, 0.05])
def test_a_pair_between_layer_and_activation_goes(after_scale):
    constants, dequantize = weights(2, 2, 1, 1)
    nodes = [*pair("x", "a"), dequantize, helper.make_node("Conv", ["a", "w real"], ["c"]), *pair("c", "d")]
    nodes += [helper.make_node("Relu", ["d"], ["r"])]
    nodes += [helper.make_node("QuantizeLinear", ["r", "after", "zero"], ["r q"])]
    nodes += [helper.make_node("DequantizeLinear", ["r q", "after", "zero"], ["e"])]
    nodes += [helper.make_node("Conv", ["e", "w real"], ["y"])]
    before = graph(nodes, **constants, after=np.float32(after_scale))
    after, report = operate(before, RTX, only=[28])
    assert [record.node for record in report.done] == ["quantize d"]
    assert count(after) == 2
    # The next quantizer saturates at the same values, unless its scale is larger.
    assert ("Clip" in ops(after)) == (after_scale > 0.02)
    feeds = [{"x": np.random.default_rng(seed).normal(0, 2, (1, 2, 6, 6)).astype(np.float32)} for seed in range(3)]
    assert worst(before, after, feeds) < 0.05


def test_a_residual_sum_keeps_its_pairs():
    constants, dequantize = weights(2, 2, 1, 1)
    nodes = [*pair("x", "a"), dequantize, helper.make_node("Conv", ["a", "w real"], ["c"]), *pair("c", "d")]
    nodes += [helper.make_node("Add", ["a", "d"], ["s"]), helper.make_node("Relu", ["s"], ["r"]), *pair("r", "e")]
    nodes += [helper.make_node("Sigmoid", ["e"], ["y"])]
    assert_untouched(graph(nodes, **constants), 28)


def test_a_repeated_pair_goes_exactly():
    constants, dequantize = weights(6, 4)
    nodes = [*pair("x", "a"), *pair("a", "b"), *pair("b", "c"), dequantize]
    nodes += [helper.make_node("MatMul", ["c", "w real"], ["y"])]
    before = graph(nodes, (3, 6), **constants)
    after = surgered(before)
    assert count(after) == 1
    assert worst(before, after, [{"x": np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)}]) == 0


@needs_rtx
@pytest.mark.parametrize(("domain", "opset"), [("", 21), ("com.microsoft", 17)])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_sixteen_bits_become_floats(domain, opset, dtype):
    """As ONNX Runtime's quantizer writes them with QInt16 and QUInt16, before opset 21 in its own domain."""
    listed = ["s16", "z16"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *listed], ["q"], domain=domain),
        helper.make_node("DequantizeLinear", ["q", *listed], ["a"], domain=domain),
        helper.make_node("DequantizeLinear", ["w", *listed], ["w real"], domain=domain),
        helper.make_node("MatMul", ["a", "w real"], ["y"]),
    ]
    zero = dtype(0 if dtype == np.int16 else 30000)
    table = np.random.default_rng(0).integers(20000, 32000, (6, 4)).astype(dtype)
    constants = {"s16": np.float32(0.0002), "z16": zero, "w": table}
    before = make_model(nodes, {"x": (FLOAT, [3, 6])}, {"y": (FLOAT, [3, 4])}, constants, opset=opset, ir_version=10)
    before.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert rtx(before).stage == "reject"
    after = surgered(before)
    assert rtx(after)[::2] == ("ok", 0)
    assert count(after) == 0
    x = np.random.default_rng(1).normal(0, 4, (3, 6)).astype(np.float32)
    assert worst(before, after, [{"x": x}]) < 1e-4


@needs_rtx
def test_the_layers_of_a_quantized_network_stay_int8():
    options = {"ActivationSymmetric": True, "WeightSymmetric": True}
    before = static(extra_options=options, activation_type=QuantType.QInt8)
    after, report = operate(before, RTX)
    taken = {record.node for record in report.done if record.row == 28}
    pointwise = {"/Sigmoid_output_0_QuantizeLinear", "/Mul_output_0_QuantizeLinear", "y_QuantizeLinear"}
    assert pointwise <= taken
    assert "/Add_output_0_QuantizeLinear" in taken  # a Relu and another pair follow
    products = [layer for layer in engine_layers(after) if layer[0] in ("correlation", "gemm", "runtime_fusion")]
    assert [layer[2][0] for layer in products] == ["Int8"] * 4
    assert worst(before, after, [images(np.random.default_rng(seed)) for seed in range(3)]) < 0.03
    again, report = operate(after, RTX)
    assert again is after
