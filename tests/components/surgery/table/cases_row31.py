"""Row 31: Pad with pads at run time, and its modes."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn
from torch.nn import functional


class Padded(nn.Module):
    """Reflected, then replicated, then cut: a negative pad."""

    def forward(self, x):
        x = functional.pad(x, (1, 2, 3, 0), mode="reflect")
        x = functional.pad(x, (0, 2, 1, 1), mode="replicate")
        return functional.pad(x, (-1, 1, 0, 0), value=0.5)


def to_a_multiple(mode):
    """Pads the sides to multiples of 4, as letterboxing models do; with the height fixed and the width open."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sides"], start=2),
        helper.make_node("Mod", ["sides", "four"], ["rest"]),
        helper.make_node("Sub", ["four", "rest"], ["missing"]),
        helper.make_node("Mod", ["missing", "four"], ["after"]),
        helper.make_node("Concat", ["nothing", "after"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["y"], name="pad", mode=mode),
    ]
    constants = {"four": np.array([4]), "nothing": np.zeros(6, np.int64)}
    return make_model(nodes, {"x": (FLOAT, [1, 2, 9, "w"])}, {"y": (FLOAT, list("abcd"))}, constants, opset=19)


def always_the_same():
    """Pads computed from the shape of an open batch, but not from the batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["sides"]),
        helper.make_node("Sub", ["target", "sides"], ["after"]),
        helper.make_node("Concat", ["nothing", "after"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["y"], name="pad", mode="reflect"),
    ]
    numbers = {"two": [2], "four": [4], "target": [12, 12], "nothing": [0] * 6}
    constants = {name: np.array(value) for name, value in numbers.items()}
    return make_model(nodes, {"x": (FLOAT, ["n", 2, 9, 10])}, {"y": (FLOAT, list("abcd"))}, constants)


def from_floats():
    nodes = [
        helper.make_node("Cast", ["margins"], ["pads"], to=7),
        helper.make_node("Pad", ["x", "pads"], ["y"], name="pad"),
    ]
    inputs = {"x": (FLOAT, [1, 2, 9, 10]), "margins": (FLOAT, [8])}
    return make_model(nodes, inputs, {"y": (FLOAT, list("abcd"))})


def widths(rng):
    return {"x": rng.standard_normal((1, 2, 9, rng.integers(4, 20))).astype(np.float32)}


CASES = [
    Case(
        "torch, reflect, replicate and cut, open batch",
        lambda: export(Padded(), torch.rand(1, 2, 7, 8), input_names=["x"], dynamic_axes={"x": {0: "n"}}),
        before="ok",
        by=0,
    ),
    Case("pads that are always the same", always_the_same, before="ok"),
    *(
        Case(
            f"to a multiple of an open width, {mode}",
            lambda mode=mode: to_a_multiple(mode),
            before="ok",
            feeds=widths,
            changes=False,
        )
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    Case("pads from floats", from_floats, before="reject", after="diagnosis"),
]
