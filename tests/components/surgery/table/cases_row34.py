"""Row 34: Loop with growing state, and Scan."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import BOOL, FLOAT, INT64, export, make_model
from torch import nn


class Decoder(nn.Module):
    """Greedy decoding: what was said so far grows by one row a round."""

    def __init__(self):
        super().__init__()
        self.step = nn.Linear(6, 6)

    def forward(self, x):
        return _decode(x, self.step.weight, self.step.bias)


@torch.jit.script
def _decode(x, weight, bias):
    said = x
    for _ in range(4):
        last = torch.nn.functional.linear(said[-1:], weight, bias).tanh()
        said = torch.cat([said, last], 0)
    return said


def body(nodes, inputs, outputs):
    def values(kinds):
        return [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]

    return helper.make_graph(nodes, "body", values(inputs), values(outputs))


def growing(opset=17):
    """Collects rows of x that are multiplied by the number of the round; also a running sum and a stack of sums."""
    nodes = [
        helper.make_node("Cast", ["round"], ["factor"], to=FLOAT),
        helper.make_node("Unsqueeze", ["round", "first"], ["place"]),
        helper.make_node("Gather", ["x", "place"], ["row"], axis=0),
        helper.make_node("Mul", ["row", "factor"], ["scaled"]),
        helper.make_node("Concat", ["so_far", "scaled"], ["longer"], axis=0),
        helper.make_node("Add", ["total", "row"], ["sum"]),
        helper.make_node("Identity", ["go_on"], ["still"]),
    ]
    inner = body(
        nodes,
        {"round": (INT64, []), "go_on": (BOOL, []), "so_far": (FLOAT, ["n", 3]), "total": (FLOAT, [1, 3])},
        {"still": (BOOL, []), "longer": (FLOAT, ["m", 3]), "sum": (FLOAT, [1, 3]), "scaled": (FLOAT, [1, 3])},
    )
    node = helper.make_node(
        "Loop", ["rounds", "yes", "start", "zero"], ["all", "last", "each"], body=inner, name="loop"
    )
    constants = {
        "rounds": np.array(4),
        "yes": np.array(True),
        "start": np.zeros((1, 3), np.float32),
        "zero": np.zeros((1, 3), np.float32),
        "first": np.array([0]),
    }
    outputs = {"all": (FLOAT, ["k", 3]), "last": (FLOAT, [1, 3]), "each": (FLOAT, None)}
    return make_model([node], {"x": (FLOAT, [4, 3])}, outputs, constants, opset)


def counted():
    """No number of rounds: the condition compares a counter in the state; an If and a constant inside."""
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["so_far"], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
        )
        for op, name in (("Neg", "negative"), ("Abs", "positive"))
    ]
    nodes = [
        helper.make_node("Add", ["counter", "one"], ["next"]),
        helper.make_node("Less", ["next", "three"], ["still"]),
        helper.make_node("Equal", ["counter", "one"], ["second"]),
        helper.make_node("If", ["second"], ["turned"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Concat", ["turned", "x"], ["longer"], axis=1),
    ]
    inner = body(
        nodes,
        {"round": (INT64, []), "go_on": (BOOL, []), "counter": (INT64, []), "so_far": (FLOAT, None)},
        {"still": (BOOL, []), "next": (INT64, []), "longer": (FLOAT, None)},
    )
    node = helper.make_node("Loop", ["", "yes", "zero", "x"], ["count", "y"], body=inner, name="loop")
    constants = {"yes": np.array(True), "zero": np.array(0), "one": np.array(1), "three": np.array(3)}
    outputs = {"count": (INT64, []), "y": (FLOAT, None)}
    return make_model([node], {"x": (FLOAT, [2, 3])}, outputs, constants)


def scanned():
    """Runs over the second axis of x and, backwards, over the rows of z; collects backwards along axis 1."""
    nodes = [
        helper.make_node("Add", ["state", "part"], ["both"]),
        helper.make_node("Mul", ["both", "other"], ["next"]),
        helper.make_node("Tanh", ["next"], ["seen"]),
    ]
    inner = body(
        nodes,
        {"state": (FLOAT, [3]), "part": (FLOAT, [3]), "other": (FLOAT, [3])},
        {"next": (FLOAT, [3]), "seen": (FLOAT, [3])},
    )
    node = helper.make_node(
        "Scan",
        ["start", "x", "z"],
        ["last", "each"],
        body=inner,
        num_scan_inputs=2,
        scan_input_axes=[1, 0],
        scan_input_directions=[0, 1],
        scan_output_axes=[1],
        scan_output_directions=[1],
    )
    inputs = {"x": (FLOAT, [3, 5]), "z": (FLOAT, [5, 3])}
    return make_model(
        [node], inputs, {"last": (FLOAT, [3]), "each": (FLOAT, [3, 5])}, {"start": np.ones(3, np.float32)}
    )


def in_the_open():
    """A dimension that the loop does not count is open."""
    return export(Decoder(), torch.rand(2, 6), input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "rows"}})


CASES = [
    Case(
        "scripted decoding",
        lambda: export(Decoder(), torch.rand(2, 6), input_names=["x"], output_names=["y"]),
        before="build",
    ),
    Case("scripted decoding, open length", in_the_open, before="build"),
    Case("state, sum and stack", growing, before="build"),
    Case("opset 13", lambda: growing(13), before="build"),
    Case("a counter in the state, If inside", counted, before="build"),
    Case("Scan in all directions", scanned, before="ok"),
]
