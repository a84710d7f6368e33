"""Row 42: Upsample, and the Resize of opset 10."""

import numpy as np
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model


def upsample(opset, mode, scales, batch="n", ir_version=8):
    """As opset 7 (scales are an attribute), 9 (an input) and 10 (Resize) have it, with something after it."""
    op = "Resize" if opset == 10 else "Upsample"
    if opset == 7:
        node = helper.make_node(op, ["x"], ["y"], name="up", mode=mode, scales=scales)
    else:
        node = helper.make_node(op, ["x", "scales"], ["y"], name="up", mode=mode)
    constants = {} if opset == 7 else {"scales": np.array(scales, np.float32)}
    relu = helper.make_node("LeakyRelu", ["y"], ["z"])
    inputs = {"x": (FLOAT, [batch, 2, 5, 6])}
    return make_model([node, relu], inputs, {"z": (FLOAT, list("abcd"))}, constants, opset, ir_version)


def to_a_fixed_size():
    """Scales computed from the shape, as torch exported interpolate(size=...) to opset 9."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sides"], to=FLOAT),
        helper.make_node("Div", ["target", "sides"], ["scales"]),
        helper.make_node("Upsample", ["x", "scales"], ["y"], name="up", mode="nearest"),
    ]
    constants = {"target": np.array([1, 2, 16, 18], np.float32)}
    return make_model(nodes, {"x": (FLOAT, [1, 2, "h", "w"])}, {"y": (FLOAT, list("abcd"))}, constants, opset=9)


CASES = [
    Case("opset 7, nearest", lambda: upsample(7, "nearest", [1.0, 1.0, 2.0, 3.0]), before="ok"),
    Case("opset 7, linear, IR 3", lambda: upsample(7, "linear", [1.0, 1.0, 2.0, 3.0], ir_version=3), before="ok"),
    Case("opset 9, linear, not a whole factor", lambda: upsample(9, "linear", [1, 1, 1.7, 2.4]), before="ok"),
    Case("opset 9, nearest, not a whole factor", lambda: upsample(9, "nearest", [1, 1, 1.7, 2.4]), before="ok"),
    Case("opset 10, Resize, smaller", lambda: upsample(10, "linear", [1, 1, 0.5, 0.7]), before="ok"),
    Case(
        "opset 9, scales at run time",
        to_a_fixed_size,
        before="ok",
        feeds=lambda rng: {"x": rng.standard_normal((1, 2, *rng.integers(4, 17, 2))).astype(np.float32)},
    ),
]
