"""Row 27: operators that compute in integers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from surgery_graphs import BOOL, FLOAT, RTX, assert_untouched, make_model, needs_rtx, rtx, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

UINT8, INT32 = TensorProto.UINT8, TensorProto.INT32
ORT = "com.microsoft"


def quantized(op, inputs, shapes, result, constants, output_scale=0.05, domain=ORT, **attributes):
    """Float inputs -> Q (uint8, zero points 100, 101, ...) -> `op` -> DQ -> y.

    `inputs` are the operator's; "a", "b" stand for a tensor with its scale and zero point, "y" for the result's.
    """
    nodes, listed, known = [], [], dict(constants)
    for name in inputs:
        if name in shapes or name == "y":
            known |= {f"{name}_scale": np.float32(output_scale if name == "y" else 0.03)}
            known |= {f"{name}_zero": np.uint8(100 + ord(name) - ord("a"))}
        if name in shapes:
            nodes.append(helper.make_node("QuantizeLinear", [f"{name}_real", f"{name}_scale", f"{name}_zero"], [name]))
        listed += [name] if name not in (*shapes, "y") else []
        listed += [name] if name in shapes else []
        listed += [f"{name}_scale", f"{name}_zero"] if name in shapes or name == "y" else []
    nodes.append(helper.make_node(op, listed, ["y"], name="integers", domain=domain, **attributes))
    nodes.append(helper.make_node("DequantizeLinear", ["y", "y_scale", "y_zero"], ["out"]))
    given = {f"{name}_real": (FLOAT, shape) for name, shape in shapes.items()}
    model = make_model(nodes, given, {"out": (FLOAT, result)}, known)
    model.opset_import.append(helper.make_opsetid(ORT, 1))
    return model


IMAGE = [2, 4, 6, 6]
BINARY = {"inputs": ["a", "b", "y"], "shapes": {"a": IMAGE, "b": IMAGE}, "result": IMAGE, "constants": {}}
UNARY = {"inputs": ["a", "y"], "shapes": {"a": IMAGE}, "result": IMAGE, "constants": {}}
FORMS = [
    ("QLinearAdd", BINARY, {}),
    ("QLinearMul", BINARY, {}),
    ("QLinearSigmoid", UNARY, {}),
    ("QLinearLeakyRelu", UNARY, {"alpha": 0.1}),
    ("QLinearSoftmax", UNARY, {"axis": -1, "opset": 13}),
    ("QLinearSoftmax", UNARY, {"axis": 1, "opset": 12}),
    ("QLinearGlobalAveragePool", UNARY | {"result": [2, 4, 1, 1]}, {}),
    ("QLinearAveragePool", UNARY | {"result": [2, 4, 3, 3]}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("QLinearConcat", BINARY | {"inputs": ["y", "a", "b"], "result": [2, 8, 6, 6]}, {"axis": 1}),
]


def stages(model, feed):
    """What comes out in quantized steps, before anything is requantized."""
    after, report = operate(model, RTX, only=[27])
    assert {record.outcome for record in report.records} == {Outcome.DONE}
    assert not {node.op_type for node in after.graph.node if node.domain == ORT}
    old, new = (Model(each)(feed)["out"] for each in (model, after))
    return np.abs(old - new)


@pytest.mark.parametrize(("op", "form", "attributes"), FORMS, ids=lambda value: str(value) if value else "")
def test_the_operators_of_onnx_runtime_keep_their_numbers_to_a_rounding(op, form, attributes):
    scale = 0.004 if "Softmax" in op or "Sigmoid" in op else 0.05
    model = quantized(op, output_scale=scale, **form, **attributes)
    rng = np.random.default_rng(0)
    feed = {value.name: rng.uniform(-3, 3, IMAGE).astype(np.float32) for value in model.graph.input}
    moved = stages(model, feed)
    assert moved.max() <= scale * 1.01
    assert op == "QLinearSoftmax" or (moved > scale / 2).mean() < 0.05  # that one looks exponentials up


def test_where_of_two_scales():
    form = {"inputs": ["mask", "a", "b", "y"], "shapes": {"a": [3, 4], "b": [3, 4]}, "result": [3, 4], "constants": {}}
    model = quantized("QLinearWhere", **form)
    model.graph.input.append(helper.make_tensor_value_info("mask", BOOL, [3, 4]))
    rng = np.random.default_rng(0)
    feed = {name: rng.uniform(-3, 3, (3, 4)).astype(np.float32) for name in ("a_real", "b_real")}
    assert stages(model, feed | {"mask": rng.random((3, 4)) < 0.5}).max() <= 0.0505


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("channels", [1, 5])
def test_gemm_with_bias_and_alpha(transposed, channels):
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (5, 6) if transposed else (6, 5)).astype(np.int8)
    scale = rng.uniform(0.01, 0.02, channels).astype(np.float32)
    constants = {
        "w": weights,
        "w_scale": scale if channels > 1 else scale.reshape(()),
        "w_zero": np.zeros(channels, np.int8) if channels > 1 else np.int8(0),
        "bias": rng.integers(-2000, 2000, 5).astype(np.int32),
    }
    inputs = ["a", "w", "w_scale", "w_zero", "bias", "y"]
    form = {"inputs": inputs, "shapes": {"a": [3, 6]}, "result": [3, 5], "constants": constants}
    model = quantized("QGemm", **form, transB=transposed, transA=0, alpha=1.0)
    moved = stages(model, {"a_real": rng.uniform(-3, 3, (3, 6)).astype(np.float32)})
    assert moved.max() <= 0.0505


def test_qlinear_matmul_with_a_scale_a_column():
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-127, 128, (6, 5)).astype(np.int8),
        "w_scale": rng.uniform(0.01, 0.02, 5).astype(np.float32),
        "w_zero": np.zeros(5, np.int8),
    }
    form = {"shapes": {"a": [2, 3, 6]}, "result": [2, 3, 5], "constants": constants}
    model = quantized("QLinearMatMul", ["a", "w", "w_scale", "w_zero", "y"], domain="", **form)
    feed = {"a_real": rng.uniform(-3, 3, (2, 3, 6)).astype(np.float32)}
    assert stages(model, feed).max() <= 0.0505


def product(op, weights, zero, shape, **attributes):
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "point"], name="measure"),
        helper.make_node(op, ["q", "w", "point", "zero"], ["sums"], **attributes),
        helper.make_node("Cast", ["sums"], ["floats"], to=FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["y"]),
    ]
    return make_model(nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, None)}, {"w": weights, "zero": zero})


@needs_rtx
@pytest.mark.parametrize("zero", [np.int8(0), np.int8(5), np.array([1, -3, 0, 7, 100], np.int8), np.uint8(128)])
def test_dynamic_products_keep_their_numbers(zero):
    rng = np.random.default_rng(0)
    weights = rng.integers(*((0, 256) if zero.dtype == np.uint8 else (-127, 128)), (6, 5)).astype(zero.dtype)
    before = product("MatMulInteger", weights, zero, ["n", 6])
    assert rtx(before).stage == "reject"
    after = surgered(before)
    assert rtx(after)[::2] == ("ok", 0)
    feeds = [{"x": rng.normal(0, 3, (count, 6)).astype(np.float32)} for count in (1, 4, 9)]
    feeds += [{"x": np.zeros((2, 6), np.float32)}, {"x": np.full((2, 6), -2.5, np.float32)}]
    assert worst(before, after, feeds) < 1e-5


def test_dynamic_convolution_pads_with_real_zeros():
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    before = product("ConvInteger", weights, np.int8(0), [1, 3, 7, 7], pads=[1, 1, 1, 1])
    feeds = [{"x": rng.uniform(-1, 4, (1, 3, 7, 7)).astype(np.float32)} for _ in range(4)]
    after = surgered(before)
    assert worst(before, after, feeds) < 1e-5
    int8 = [tensor for tensor in after.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert [list(tensor.dims) for tensor in int8 if tensor.dims] == [[4, 3, 3, 3]]


@pytest.mark.parametrize("bias", [False, True])
def test_products_that_onnx_runtime_has_fused(bias):
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(0, 256, (6, 5)).astype(np.uint8),
        "scale": np.float32(0.02),
        "zero": np.uint8(120),
        "bias": rng.standard_normal(5).astype(np.float32),
    }
    listed = ["x", "w", "scale", "zero", *(["bias"] if bias else [])]
    node = helper.make_node("DynamicQuantizeMatMul", listed, ["y"], domain=ORT)
    before = make_model([node], {"x": (FLOAT, [4, 6])}, {"y": (FLOAT, None)}, constants)
    before.opset_import.append(helper.make_opsetid(ORT, 1))
    after, report = operate(before, RTX, only=[27])
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert worst(before, after, [{"x": rng.normal(0, 2, (4, 6)).astype(np.float32)} for _ in range(4)]) < 1e-5


@needs_rtx
def test_an_embedding_in_int8_is_read_as_floats():
    """Dynamic quantization of a Gather: the integers are looked up, then dequantized."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["rows"], name="look up"),
        helper.make_node("DequantizeLinear", ["rows", "scale", "zero"], ["y"]),
    ]
    table = np.random.default_rng(0).integers(0, 256, (9, 4)).astype(np.uint8)
    constants = {"table": table, "scale": np.float32(0.1), "zero": np.uint8(128)}
    before = make_model(nodes, {"x": (TensorProto.INT64, ["n"])}, {"y": (FLOAT, ["n", 4])}, constants)
    assert rtx(before).stage != "ok"
    after = surgered(before)
    assert rtx(after)[::2] == ("ok", 0)
    assert worst(before, after, [{"x": np.array([0, 8, 3])}]) == 0


def test_measured_integers_that_something_else_reads_are_refused():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], name="measure"),
        helper.make_node("Cast", ["q"], ["y"], to=FLOAT),
    ]
    model = make_model(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])})
    after, report = operate(model, RTX, only=[27])
    assert after is model
    (record,) = report.records
    assert (record.outcome, record.node) == (Outcome.REFUSED, "measure")


def test_an_operator_without_a_form_is_refused_by_name():
    node = helper.make_node("DynamicQuantizeLSTM", ["x", "w"], ["y"], name="recurrent", domain=ORT)
    constants = {"w": np.zeros((1, 2, 2), np.int8)}
    model = make_model([node], {"x": (FLOAT, [1, 1, 2])}, {"y": (FLOAT, None)}, constants)
    model.opset_import.append(helper.make_opsetid(ORT, 1))
    after, report = operate(model, RTX, only=[27])
    assert after is model
    assert [(record.outcome, record.node) for record in report.records] == [(Outcome.REFUSED, "recurrent")]


def test_pairs_in_the_domain_of_onnx_runtime_move_to_the_standard():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], domain=ORT),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], domain=ORT),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.int8(0)}
    before = make_model(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}, constants)
    before.opset_import.append(helper.make_opsetid(ORT, 1))
    after = surgered(before)
    assert {node.domain for node in after.graph.node} == {""}
    onnx.checker.check_model(after)


def test_floats_are_untouched():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert_untouched(make_model(nodes, {"x": (FLOAT, [2, 2])}, {"y": (FLOAT, [2, 2])}, {"w": np.eye(2, dtype="f")}), 27)
    nodes = [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])]
    assert_untouched(make_model(nodes, {"x": (FLOAT, [1, 1, 4, 4])}, {"y": (FLOAT, [1, 1, 3, 3])}), 27)
