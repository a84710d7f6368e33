"""Row 19: sequences of tensors."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn


@torch.jit.script
def _mixed(x):
    parts = torch.split(x, 2, dim=1)
    return torch.cat([parts[1] * 2, parts[0], parts[-1].tanh()], 1)


class Chunked(nn.Module):
    """Parts that are joined in another order."""

    def forward(self, x):
        return _mixed(x)


@torch.jit.script
def _collect(x):
    rows = []
    for index in range(4):
        rows.append(x[index] * float(index))  # noqa: PERF401, as people write it in scripts
    return torch.stack(rows, 1)


class Collected(nn.Module):
    """A Python list that grows in a scripted loop: SequenceInsert in a Loop, ConcatFromSequence behind it."""

    def forward(self, x):
        return _collect(x)


def traced(module, x, axes=None):
    return export(module, x, input_names=["x"], output_names=["y"], dynamic_axes={"x": axes or {}})


def edited():
    """Every operator that changes a sequence, and its length."""
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=1),
        helper.make_node("SequenceErase", ["parts", "one"], ["fewer"]),
        helper.make_node("SequenceInsert", ["fewer", "z", "zero"], ["more"]),
        helper.make_node("SequenceLength", ["more"], ["length"]),
        helper.make_node("ConcatFromSequence", ["more"], ["y"], axis=1),
        helper.make_node("SequenceAt", ["more", "last"], ["end"]),
    ]
    constants = {"sizes": np.array([1, 3, 2]), "zero": np.array(0), "one": np.array(1), "last": np.array(-1)}
    outputs = {"y": (FLOAT, None), "end": (FLOAT, None), "length": (INT64, [])}
    return make_model(nodes, {"x": (FLOAT, [2, 6]), "z": (FLOAT, [2, 2])}, outputs, constants)


def chosen():
    """The index is an input."""
    nodes = [
        helper.make_node("SequenceConstruct", ["a", "b", "c"], ["all"]),
        helper.make_node("SequenceAt", ["all", "index"], ["y"]),
    ]
    return make_model(nodes, {name: (FLOAT, [2, 3]) for name in "abc"} | {"index": (INT64, [])}, {"y": (FLOAT, [2, 3])})


def ends():
    """SplitToSequence of an open dimension, one row each."""
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0, keepdims=0),
        helper.make_node("SequenceAt", ["rows", "zero"], ["first"]),
        helper.make_node("SequenceAt", ["rows", "minus"], ["last"]),
        helper.make_node("SequenceLength", ["rows"], ["count"]),
        helper.make_node("Add", ["first", "last"], ["y"]),
        helper.make_node("ConcatFromSequence", ["rows"], ["again"], axis=0, new_axis=1),
    ]
    constants = {"zero": np.array(0), "minus": np.array(-1)}
    outputs = {"y": (FLOAT, [3]), "count": (INT64, []), "again": (FLOAT, None)}
    return make_model(nodes, {"x": (FLOAT, ["n", 3])}, outputs, constants)


CASES = [
    Case("scripted split, open rows", lambda: traced(Chunked(), torch.rand(3, 5), {0: "n"}), before="reject"),
    Case("first and last row of an open number", ends, before="reject"),
    Case("list in a loop", lambda: traced(Collected(), torch.rand(4, 3)), before="reject"),
    Case("insert, erase, length", edited, before="reject"),
    Case("run-time index", chosen, before="reject"),
]
