"""Row 20: Scatter* with reduction="add"."""

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn


class Aggregated(nn.Module):
    """Messages of edges summed at their nodes, as in graph networks."""

    def forward(self, x, source, target):
        return torch.zeros_like(x).scatter_add(0, target[:, None].expand(-1, x.shape[1]), x[source])


class Summed(nn.Module):
    def forward(self, x, index, update):
        return x.scatter_add(1, index, update)


def edges(rng):
    return {
        "x": rng.standard_normal((7, 4)).astype(np.float32),
        "source": rng.integers(0, 7, 20),
        "target": rng.integers(0, 7, 20),
    }


def graph_network():
    places = torch.randint(0, 7, (20,))
    return export(Aggregated(), torch.rand(7, 4), places, places, input_names=["x", "source", "target"], opset=18)


def lanes(rng):
    return {
        "x": rng.standard_normal((3, 8)).astype(np.float32),
        "index": rng.integers(0, 8, (3, 5)),
        "update": rng.standard_normal((3, 5)).astype(np.float32),
    }


def elements(op, shape, index, update, *, opset=18, kind=FLOAT, **attributes):
    node = helper.make_node(op, ["x", "index", "update"], ["y"], reduction="add", **attributes)
    inputs = {"x": (kind, shape), "index": (INT64, index), "update": (kind, update)}
    return make_model([node], inputs, {"y": (kind, shape)}, opset=opset)


def grid(rng, dtype):
    """Pairs of indices with duplicates, some counted from the end."""
    numbers = {"x": rng.integers(-50, 50, (4, 5, 3)), "update": rng.integers(-50, 50, (6, 3))}
    index = np.stack([rng.integers(-4, 4, 6), rng.integers(-5, 5, 6)], 1)
    return {name: value.astype(dtype) for name, value in numbers.items()} | {"index": index}


CASES = [
    Case("messages of a graph network", graph_network, before="reject", feeds=edges),
    Case(
        "scatter_add, other index in each row",
        lambda: export(
            Summed(),
            torch.rand(3, 8),
            torch.zeros(3, 5, dtype=torch.int64),
            torch.rand(3, 5),
            input_names=["x", "index", "update"],
            opset=16,
        ),
        before="reject",
        feeds=lanes,
    ),
    Case(
        "pairs of indices, duplicates, negative",
        lambda: elements("ScatterND", [4, 5, 3], [6, 2], [6, 3]),
        before="reject",
        feeds=lambda rng: grid(rng, np.float32),
    ),
    Case(
        "integers",
        lambda: elements("ScatterND", [4, 5, 3], [6, 2], [6, 3], kind=TensorProto.INT32),
        before="reject",
        feeds=lambda rng: grid(rng, np.int32),
    ),
    Case(
        "fewer lanes than the data has, axis 1",
        lambda: elements("ScatterElements", [4, 6, 5], [2, 7, 3], [2, 7, 3], axis=1, opset=17),
        before="reject",
        feeds=lambda rng: {
            "x": rng.standard_normal((4, 6, 5)).astype(np.float32),
            "index": rng.integers(-6, 6, (2, 7, 3)),
            "update": rng.standard_normal((2, 7, 3)).astype(np.float32),
        },
    ),
]
