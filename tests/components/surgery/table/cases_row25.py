"""Row 25: Q/DQ with a zero point."""

import numpy as np
from onnx import helper
from onnxruntime.quantization import QuantType
from quantized_nets import images, static
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model


def pair(dtype, zero, shape=(2, 3, 4)):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = {"scale": np.float32(0.02), "zero": dtype(zero)}
    return make_model(nodes, {"x": (FLOAT, ["n", *shape[1:]])}, {"y": (FLOAT, ["n", *shape[1:]])}, constants)


# Requantizing moves numbers by up to a step on purpose: 0.8% of the range, which the inputs here do not fill.
CASES = [
    Case("uint8, zero point 128", lambda: pair(np.uint8, 128), before="reject"),
    Case("uint8, zero point 0: cut at 127 in silence", lambda: pair(np.uint8, 0), before="ok", tolerance=0.03),
    Case("int8, zero point -7", lambda: pair(np.int8, -7), before="reject", tolerance=0.02),
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
