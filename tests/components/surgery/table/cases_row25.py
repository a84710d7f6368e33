"""Row 25: Q/DQ with a zero point."""

import numpy as np
from onnx import helper
from onnxruntime.quantization import QuantType
from quantized_nets import images, static
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model


def product(dtype, zero):
    """x -> Q -> DQ -> MatMul with symmetric int8 weights."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["real"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "w_zero"], ["w_real"]),
        helper.make_node("MatMul", ["real", "w_real"], ["y"]),
    ]
    weights = np.random.default_rng(0).integers(-127, 128, (6, 5)).astype(np.int8)
    constants = {"scale": np.float32(0.02), "zero": dtype(zero), "w": weights, "w_zero": np.int8(0)}
    return make_model(nodes, {"x": (FLOAT, ["n", 6])}, {"y": (FLOAT, ["n", 5])}, constants)


# Requantizing moves numbers by up to a step on purpose: 0.8% of the range, which the inputs here do not fill.
CASES = [
    Case("uint8, zero point 128", lambda: product(np.uint8, 128), before="reject"),
    Case("uint8, zero point 0: cut at 127 in silence", lambda: product(np.uint8, 0), before="ok", tolerance=0.03),
    Case("int8, zero point -7", lambda: product(np.int8, -7), before="reject", tolerance=0.02),
    Case(
        "ONNX Runtime's default INT8",
        lambda: static(activation_type=QuantType.QUInt8),
        before="reject",
        feeds=images,
        tolerance=0.03,
    ),
    Case(
        "uint8 weights and activations",
        lambda: static(activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8),
        before="reject",
        feeds=images,
        tolerance=0.03,
    ),
]
