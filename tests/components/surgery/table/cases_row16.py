"""Row 16: TopK with K above 3840."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn


class Ranked(nn.Module):
    """Sorting of all scores, as ranking losses and post-processing do."""

    def forward(self, scores):
        values, order = scores.sort(dim=1, descending=True)
        return values, order


def top(count, size, *, axis=-1, opset=17, rows=2, **attributes):
    shape = [rows, size] if axis == -1 else [size, rows]
    node = helper.make_node("TopK", ["x", "k"], ["values", "indices"], axis=axis, **attributes)
    outputs = {"values": (FLOAT, None), "indices": (INT64, None)}
    return make_model([node], {"x": (FLOAT, shape)}, outputs, {"k": np.array([count])}, opset)


def with_ties(rng, *shape):
    return {"x": rng.integers(0, 50, shape).astype(np.float32)}


def with_infinities(rng):
    x = rng.standard_normal((2, 9000)).astype(np.float32)
    return {"x": np.where(rng.random(x.shape) < 0.4, -np.inf, x).astype(np.float32)}


CASES = [
    Case(
        "all of 5000 sorted, traced",
        lambda: export(Ranked(), torch.rand(2, 5000), input_names=["scores"], output_names=["values", "order"]),
        before="build",
    ),
    Case(
        "4000 of 6000, ties",
        lambda: top(4000, 6000),
        before="build",
        feeds=lambda rng: with_ties(rng, 2, 6000),
    ),
    Case("7700 of 9000, -inf among them", lambda: top(7700, 9000), before="build", feeds=with_infinities),
    Case(
        "the smallest, first axis, opset 11",
        lambda: top(4000, 5000, axis=0, opset=11, largest=0),
        before="build",
        feeds=lambda rng: with_ties(rng, 5000, 2),
    ),
    Case("open batch", lambda: top(4000, 5000, rows="n"), before="build"),
]
