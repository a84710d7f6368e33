"""Row 44: Scatter* with reduction="max", "min" and "mul"."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn


class Largest(nn.Module):
    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce

    def forward(self, x, index, update):
        return x.scatter_reduce(0, index, update, self.reduce)


def traced(reduce):
    return export(
        Largest(reduce),
        torch.rand(6, 4),
        torch.zeros(9, 4, dtype=torch.int64),
        torch.rand(9, 4),
        input_names=["x", "index", "update"],
        output_names=["y"],
        opset=18,
    )


def feeds(rng):
    return {
        "x": rng.standard_normal((6, 4)).astype(np.float32),
        "index": rng.integers(0, 6, (9, 4)),
        "update": rng.standard_normal((9, 4)).astype(np.float32),
    }


def points(shape=(6, 5, 3)):
    """A pillar network's scatter: the largest feature of the points in each cell."""
    node = helper.make_node("ScatterND", ["x", "index", "update"], ["y"], reduction="max")
    inputs = {"x": (FLOAT, list(shape)), "index": (INT64, [12, 2]), "update": (FLOAT, [12, shape[2]])}
    return make_model([node], inputs, {"y": (FLOAT, list(shape))}, opset=18)


def point_feeds(rng):
    return {
        "x": rng.standard_normal((6, 5, 3)).astype(np.float32),
        "index": np.stack([rng.integers(-6, 6, 12), rng.integers(0, 5, 12)], 1),
        "update": rng.standard_normal((12, 3)).astype(np.float32),
    }


def elements(reduction, opset):
    node = helper.make_node("ScatterElements", ["x", "index", "update"], ["y"], axis=0, reduction=reduction)
    inputs = {"x": (FLOAT, [6, 4]), "index": (INT64, [9, 4]), "update": (FLOAT, [9, 4])}
    return make_model([node], inputs, {"y": (FLOAT, [6, 4])}, opset=opset)


def extreme(feed):
    """What torch computes; its export does not run in ONNX Runtime, which finds two shapes for one name in its Ifs."""
    result = feed["x"].copy()
    np.maximum.at(result, (feed["index"], np.arange(4)[None]), feed["update"])
    return {"y": result}


CASES = [
    Case("scatter_reduce amax", lambda: traced("amax"), before="reject", feeds=feeds, reference=extreme),
    Case("min", lambda: elements("min", 18), before="reject", feeds=feeds),
    Case("product, opset 16", lambda: elements("mul", 16), before="reject", feeds=feeds),
    Case("largest feature of each cell", points, before="reject", feeds=point_feeds),
    Case("a table that is too large", lambda: points((2048, 1024, 64)), before="reject", after="diagnosis"),
]
