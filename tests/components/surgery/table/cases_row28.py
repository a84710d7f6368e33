"""Row 28: Q/DQ pairs that no layer can fuse."""

import numpy as np
from onnx import helper
from onnxruntime.quantization import QuantType
from quantized_nets import images, static
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def pair(source, made):
    return [
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{made} q"], name=f"quantize {made}"),
        helper.make_node("DequantizeLinear", [f"{made} q", "scale", "zero"], [made]),
    ]


def gate():
    """x * sigmoid(x), with pairs around everything."""
    nodes = [
        *pair("x", "a"),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        *pair("s", "b"),
        helper.make_node("Mul", ["a", "b"], ["m"]),
        *pair("m", "c"),
        helper.make_node("Softmax", ["c"], ["p"]),
        *pair("p", "y"),
    ]
    constants = {"scale": np.float32(0.03), "zero": np.int8(0)}
    return make_model(nodes, {"x": (FLOAT, ["n", 6])}, {"y": (FLOAT, ["n", 6])}, constants)


def repeated():
    """Every tool that adds pairs added its own."""
    nodes = [
        *pair("x", "once"),
        *pair("once", "again"),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["w real"]),
        helper.make_node("MatMul", ["again", "w real"], ["y"]),
    ]
    weights = np.random.default_rng(0).integers(-127, 128, (6, 5)).astype(np.int8)
    constants = {"scale": np.float32(0.03), "zero": np.int8(0), "w": weights}
    return make_model(nodes, {"x": (FLOAT, ["n", 6])}, {"y": (FLOAT, ["n", 5])}, constants)


CASES = [
    # Half a step of the scale of 0.03, which is coarse so that the difference shows.
    Case("pairs around pointwise operators", gate, before="ok", tolerance=0.1),
    Case("a pair twice", repeated, before="ok"),
    Case(
        "pairs of ONNX Runtime around everything",
        lambda: static(extra_options=SYMMETRIC, activation_type=QuantType.QInt8),
        before="ok",
        feeds=images,
        tolerance=0.03,
    ),
]
