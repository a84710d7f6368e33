"""Row 15: NonZero and boolean indexing."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import BOOL, FLOAT, INT64, export, make_model
from torch import nn

SHAPE = (6, 5)


class MaskedUpdate(nn.Module):
    def forward(self, x, mask):
        y = x.clone()
        y[mask] = x[mask] * 2 + 1
        return y


class MaskedMean(nn.Module):
    def forward(self, x, mask):
        return x[mask].mean()


class Selected(nn.Module):
    def forward(self, x, mask):
        return x[mask] * 2


def traced(module, shape=SHAPE):
    return export(module, torch.rand(*shape), torch.rand(*shape) > 0.5, input_names=["x", "mask"], output_names=["y"])


def feeds(rng):
    mask = rng.random(SHAPE) < 0.5
    mask[0, 0] = True
    return {"x": rng.standard_normal(SHAPE).astype(np.float32), "mask": mask}


def positions():
    node = helper.make_node("NonZero", ["mask"], ["at"], name="find")
    return make_model([node], {"mask": (BOOL, list(SHAPE))}, {"at": (INT64, [2, "n"])})


def constant():
    nodes = [helper.make_node("NonZero", ["mask"], ["at"]), helper.make_node("Gather", ["x", "at"], ["y"], axis=0)]
    mask = {"mask": np.array([True, False, True, True])}
    return make_model(nodes, {"x": (FLOAT, [4, 3])}, {"y": (FLOAT, [1, 3, 3])}, mask)


CASES = [
    Case("x[mask] = f(x[mask])", lambda: traced(MaskedUpdate()), before="reject", feeds=feeds),
    Case("x[mask].mean()", lambda: traced(MaskedMean()), before="reject", feeds=feeds),
    Case("x[mask] as output", lambda: traced(Selected()), before="reject", feeds=feeds),
    Case("NonZero as output", positions, before="reject", feeds=lambda rng: {"mask": feeds(rng)["mask"]}),
    Case("constant mask", constant, before="reject", by=0),
]
