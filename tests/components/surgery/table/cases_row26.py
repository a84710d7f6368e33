"""Row 26: an INT32 bias through DequantizeLinear."""

import numpy as np
from onnx import helper
from quantized_nets import images, static
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}


def convolution(per_channel):
    rng = np.random.default_rng(0)
    channels = (4,) if per_channel else ()
    scales = {"x_scale": np.float32(0.02), "w_scale": np.float32(0.01) * (1 + np.arange(4, dtype=np.float32))}
    if not per_channel:
        scales["w_scale"] = np.float32(0.01)
    axis = {"axis": 0} if per_channel else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "x_scale", "zero"], ["x_real"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_real"], **axis),
        helper.make_node("DequantizeLinear", ["b", "b_scale"], ["b_real"], name="bias", **axis),
        helper.make_node("Conv", ["x_real", "w_real", "b_real"], ["y"], pads=[1, 1, 1, 1]),
    ]
    constants = scales | {
        "zero": np.int8(0),
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "w_zero": np.zeros(channels, np.int8),
        "b": rng.integers(-5000, 5000, 4).astype(np.int32),
        "b_scale": np.float32(0.02) * scales["w_scale"],
    }
    return make_model(nodes, {"x": (FLOAT, ["n", 3, 8, 8])}, {"y": (FLOAT, ["n", 4, 8, 8])}, constants)


CASES = [
    Case("one scale", lambda: convolution(per_channel=False), before="reject"),
    Case("a scale a channel", lambda: convolution(per_channel=True), before="reject"),
    Case(
        "symmetric INT8 of ONNX Runtime",
        lambda: static(extra_options=SYMMETRIC),
        before="reject",
        feeds=images,
        tolerance=0.03,  # row 28 takes pairs out that round
    ),
]
