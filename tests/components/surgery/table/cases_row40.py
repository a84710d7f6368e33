"""Row 40: open batch and image size, pinned to the shape that is given."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import BOOL, FLOAT, export, make_model
from torch import nn

from components.surgery.surgery import Options


class Head(nn.Module):
    """A head with shape arithmetic."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y.flatten(2).transpose(1, 2).reshape(x.shape[0], -1, 2)


def head():
    return export(
        Head(),
        torch.rand(1, 3, 8, 8),
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}},
    )


def masked_mean():
    """What row 15 can replace only where the size of the mask is known."""
    nodes = [
        helper.make_node("NonZero", ["mask"], ["places"]),
        helper.make_node("Transpose", ["places"], ["index"], perm=[1, 0]),
        helper.make_node("GatherND", ["x", "index"], ["picked"]),
        helper.make_node("ReduceSum", ["picked"], ["y"], keepdims=0),
    ]
    return make_model(nodes, {"x": (FLOAT, ["n", 5]), "mask": (BOOL, ["n", 5])}, {"y": (FLOAT, [])})


def image(rng, *size):
    return {"x": rng.random((*size[:1], 3, *size[1:])).astype(np.float32)}


CASES = [
    Case(
        "pinned by name",
        head,
        before="ok",
        feeds=lambda rng: image(rng, 2, 16, 24),
        options=Options(input_shapes={"x": [2, 3, 16, 24]}),
    ),
    Case(
        "pinned, which lets another row work",
        masked_mean,
        before="reject",
        options=Options(input_shapes={"": [6, 5]}),
    ),
]
