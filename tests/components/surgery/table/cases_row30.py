"""Row 30: mask constants beyond FP16's range."""

import math

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import BOOL, export, make_model
from torch import nn

HALF = TensorProto.FLOAT16
STEPS = 6


class Causal(nn.Module):
    """Attention that adds a table of 0 and -inf, as torch's own Transformer does."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("mask", torch.full((STEPS, STEPS), -math.inf).triu(1))

    def forward(self, x):
        return torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 2 + self.mask, -1) @ x


class Padded(nn.Module):
    """(1 - mask) * lowest, as BERT does, shared by two layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x, mask):
        hide = (1.0 - mask[:, None, :].float()) * torch.finfo(torch.float32).min
        for layer in self.layers:
            x = torch.softmax(layer(x) @ x.transpose(1, 2) + hide, -1) @ x
        return x


class Filled(nn.Module):
    """masked_fill with -1e9."""

    def forward(self, x, hide):
        return torch.softmax((x @ x.transpose(1, 2)).masked_fill(hide, -1e9), -1)


def traced(module, *arguments, names):
    torch.manual_seed(0)
    axes = {name: {0: "n"} for name in names}
    return export(module, *arguments, input_names=list(names), output_names=["y"], dynamic_axes=axes)


def half():
    """An FP16 model whose mask overflowed to -inf when it was converted."""
    nodes = [
        helper.make_node("Where", ["hide", "lowest", "x"], ["scores"], name="mask"),
        helper.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    inputs = {"x": (HALF, ["n", STEPS]), "hide": (BOOL, ["n", STEPS])}
    return make_model(nodes, inputs, {"y": (HALF, ["n", STEPS])}, {"lowest": np.float16(-np.inf)})


def sequences(rng):
    return {"x": rng.standard_normal((2, STEPS, 4)).astype(np.float32)}


def with_mask(name, kind):
    def make(rng):
        mask = (rng.random((2, STEPS)) < 0.5).astype(kind)
        mask[:, 0] = name == "mask"  # one position is always seen
        if name == "hide":
            mask = np.broadcast_to(mask[:, None, :], (2, STEPS, STEPS)).copy()
        return {**sequences(rng), name: mask}

    return make


def half_feeds(rng):
    feed = with_mask("hide", bool)(rng)
    return {"x": feed["x"][..., 0].astype(np.float16), "hide": feed["hide"][:, 0]}


X = torch.rand(2, STEPS, 4)
CASES = [
    Case("a causal table of -inf", lambda: traced(Causal(), X, names=["x"]), before="ok", feeds=sequences),
    Case(
        "(1 - mask) * -3.4e38",
        lambda: traced(Padded(), X, torch.ones(2, STEPS, dtype=torch.int64), names=["x", "mask"]),
        before="ok",
        feeds=with_mask("mask", np.int64),
    ),
    Case(
        "masked_fill(-1e9)",
        lambda: traced(Filled(), X, torch.zeros(2, STEPS, STEPS, dtype=torch.bool), names=["x", "hide"]),
        before="ok",
        feeds=with_mask("hide", bool),
    ),
    Case("-inf in FP16", half, before="ok", feeds=half_feeds),
]
