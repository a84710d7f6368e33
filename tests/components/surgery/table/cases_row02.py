"""Row 2: Resize with scales that are only known at run time."""

import numpy as np
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model

OPEN = ["a", "b", "c", "d"]


def to_a_fixed_size(mode="linear", **attributes):
    """Scales = target / shape, on two axes, as converters write an opset-18 Resize to a fixed size."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=2),
        helper.make_node("Cast", ["shape"], ["sides"], to=FLOAT),
        helper.make_node("Div", ["target", "sides"], ["scales"]),
        helper.make_node("Resize", ["x", "", "scales"], ["y"], name="resize", mode=mode, axes=[2, 3], **attributes),
    ]
    inputs = {"x": (FLOAT, ["n", 3, "h", "w"])}
    return make_model(nodes, inputs, {"y": (FLOAT, OPEN)}, {"target": np.array([16, 24], np.float32)}, opset=18)


def by_an_input(kind):
    """Scales = an input, or a reduced activation."""
    nodes = [
        helper.make_node("Concat", ["ones", "factors"], ["scales"], axis=0),
        helper.make_node("Resize", ["x", "", "scales"], ["y"], name="resize", mode="nearest"),
    ]
    inputs = {"x": (FLOAT, [1, 3, 8, 10])}
    if kind == "input":
        inputs["factors"] = (FLOAT, [2])
    else:
        nodes.insert(0, helper.make_node("Slice", ["x", "zeros", "ends"], ["corner"]))
        nodes.insert(1, helper.make_node("Reshape", ["corner", "two"], ["factors"]))
    constants = {"ones": np.ones(2, np.float32)}
    if kind != "input":
        constants |= {"zeros": np.zeros(4, np.int64), "ends": np.array([1, 1, 1, 2]), "two": np.array([2])}
    return make_model(nodes, inputs, {"y": (FLOAT, OPEN)}, constants)


def sides(rng):
    return {"x": rng.standard_normal((2, 3, *rng.integers(4, 20, 2))).astype(np.float32)}


CASES = [
    Case("target / shape on two axes", to_a_fixed_size, before="reject", feeds=sides),
    Case("the same, cubic", lambda: to_a_fixed_size("cubic"), before="reject", feeds=sides),
    Case("float input", lambda: by_an_input("input"), before="reject", after="diagnosis"),
    Case("activations", lambda: by_an_input("activation"), before="reject", after="diagnosis"),
]
