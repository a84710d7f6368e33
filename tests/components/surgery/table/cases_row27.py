"""Row 27: operators that compute in integers."""

import numpy as np
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantFormat, QuantType
from quantized_nets import dynamic, images, static
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model


def integer_product():
    """MatMulInteger of a graph input in uint8, as in the standard's own tests."""
    node = helper.make_node("MatMulInteger", ["x", "w", "x_zero", "w_zero"], ["y"], name="product")
    constants = {
        "w": np.random.default_rng(0).integers(-127, 128, (6, 5)).astype(np.int8),
        "x_zero": np.uint8(12),
        "w_zero": np.int8(0),
    }
    return make_model([node], {"x": (TensorProto.UINT8, [4, 6])}, {"y": (TensorProto.INT32, [4, 5])}, constants)


def measured():
    """DynamicQuantizeLinear read by DequantizeLinear, of an open number of rows."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], name="measure"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return make_model(nodes, {"x": (FLOAT, ["n", 6])}, {"y": (FLOAT, ["n", 6])})


CASES = [
    Case(
        "QLinearConv, QLinearAdd, QGemm ... (QOperator format)",
        lambda: static(quant_format=QuantFormat.QOperator),
        before="reject",
        feeds=images,
        tolerance=0.03,
    ),
    Case(
        "the same in uint8, a scale a channel",
        lambda: static(quant_format=QuantFormat.QOperator, activation_type=QuantType.QUInt8, per_channel=True),
        before="reject",
        feeds=images,
        tolerance=0.03,
    ),
    Case("dynamic quantization", lambda: dynamic(weight_type=QuantType.QInt8), before="reject", feeds=images),
    Case("dynamic, uint8 weights", lambda: dynamic(weight_type=QuantType.QUInt8), before="reject", feeds=images),
    Case("DynamicQuantizeLinear alone", measured, before="reject"),
    Case(
        "MatMulInteger",
        integer_product,
        before="reject",
        feeds=lambda rng: {"x": rng.integers(0, 256, (4, 6)).astype(np.uint8)},
    ),
]
