"""Row 9: UINT8 inside the graph."""

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn

UINT8 = TensorProto.UINT8


class ByteMask(nn.Module):
    def forward(self, x):
        mask = (x > 0.2).byte()
        return x * mask[:, :3].float()[:, :1]


class Counted(nn.Module):
    """A mask that is added up before it is compared."""

    def forward(self, x):
        mask = (x > 0).to(torch.uint8)
        both = torch.cat([mask, (x > 1).to(torch.uint8)], 1)
        return torch.where(both == 1, 2.0, -1.0)


class Rounded(nn.Module):
    """Pixels of a float image."""

    def forward(self, x):
        return (x * 255).to(torch.uint8).float() / 255


def traced(module):
    axes = {"x": {0: "n"}}
    return export(module, torch.randn(2, 4, 5), input_names=["x"], output_names=["y"], dynamic_axes=axes)


def wrapped():
    """Large integers cut to 8 bits."""
    nodes = [helper.make_node("Cast", ["x"], ["small"], to=UINT8), helper.make_node("Cast", ["small"], ["y"], to=FLOAT)]
    return make_model(nodes, {"x": (TensorProto.INT64, [3, 4])}, {"y": (FLOAT, [3, 4])})


CASES = [
    Case("(x > c).byte(), sliced, times x", lambda: traced(ByteMask()), before="reject"),
    Case("joined and compared", lambda: traced(Counted()), before="reject"),
    Case(
        "a float image rounded to pixels",
        lambda: traced(Rounded()),
        before="reject",
        feeds=lambda rng: {"x": rng.random((2, 4, 5)).astype(np.float32)},
    ),
    Case("INT64 cut to 8 bits", wrapped, before="reject", feeds=lambda rng: {"x": rng.integers(-999, 999, (3, 4))}),
]
