"""Row 21: writes to fixed parts of a tensor."""

import warnings

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn


class Columns(nn.Module):
    def forward(self, x, v):
        y = x.clone()
        y[:, 1:4] = v
        return y


class Corner(nn.Module):
    """A decoder's way to put the box centres back: a block in the last axis of one image."""

    def forward(self, x, v):
        y = x.clone()
        y[0, 1:3, :, 2:] = v
        return y * 2


class EveryOther(nn.Module):
    def forward(self, x, v):
        y = x.clone()
        y[::2, 0] = v
        return y


def traced(module, x, v):
    return export(module, torch.rand(x), torch.rand(v), input_names=["x", "v"], output_names=["y"])


def dynamo(module, x, v):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), (torch.rand(x), torch.rand(v)), dynamo=True, opset_version=18, verbose=False
        )
    return program.model_proto


def listed():
    """A list of places, one of them twice, one counted from the end; an open dimension behind."""
    node = helper.make_node("ScatterND", ["x", "places", "v"], ["y"])
    places = np.array([[3, 0], [0, 1], [-1, 1], [0, 1]])
    inputs = {"x": (FLOAT, [4, 2, "n"]), "v": (FLOAT, [4, "n"])}
    return make_model([node], inputs, {"y": (FLOAT, [4, 2, "n"])}, {"places": places})


CASES = [
    Case("columns", lambda: traced(Columns(), (4, 6), (4, 3)), before="ok"),
    Case("columns, dynamo", lambda: dynamo(Columns(), (4, 6), (4, 3)), before="ok"),
    Case("a block in three axes", lambda: traced(Corner(), (2, 4, 3, 5), (2, 3, 3)), before="ok"),
    Case("every other row", lambda: traced(EveryOther(), (5, 3), (3,)), before="ok"),
    Case("a list of places, open dimension", listed, before="ok"),
]
