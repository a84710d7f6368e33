"""Row 18: If, mostly of a squeeze whose dimension the exporter did not know."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn


class Squeezed(nn.Module):
    def forward(self, x):
        return torch.relu(x.squeeze(1)) * 2


def squeezed(axes):
    return export(Squeezed(), torch.rand(3, 1, 4), input_names=["x"], output_names=["y"], dynamic_axes={"x": axes})


def constant_condition():
    """Branches of different rank; both read a tensor from outside."""
    branches = [
        helper.make_graph([node], name, [], [helper.make_tensor_value_info("r", FLOAT, None)])
        for name, node in (
            ("then", helper.make_node("Squeeze", ["x", "axis"], ["r"])),
            ("else", helper.make_node("Neg", ["x"], ["r"])),
        )
    ]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["size"], axis=0),
        helper.make_node("Equal", ["size", "one"], ["is_one"]),
        helper.make_node("If", ["is_one"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    constants = {"first": np.array(0), "one": np.array(1), "axis": np.array([0])}
    return make_model(nodes, {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, None)}, constants)


CASES = [
    Case(
        "squeeze of an open dimension",
        lambda: squeezed({0: "n", 1: "c"}),
        before="build",
        feeds=lambda rng: {"x": rng.standard_normal((int(rng.integers(1, 7)), 1, 4)).astype(np.float32)},
    ),
    Case("condition made constant by the shapes", constant_condition, before="ok"),
]
