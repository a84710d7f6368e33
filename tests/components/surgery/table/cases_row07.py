"""Row 7: FLOAT64 anywhere."""

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn

DOUBLE = TensorProto.DOUBLE


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.AvgPool2d(2))

    def forward(self, x):
        return torch.softmax(self.layers(x).flatten(1), -1)


def trained():
    torch.manual_seed(0)
    return Layers().double().eval()


def answers(feed):
    """Of torch, since ONNX Runtime has no convolution in float64."""
    with torch.no_grad():
        return {"y": trained()(torch.from_numpy(feed["x"])).numpy()}


def whole():
    """A model trained in double precision."""
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    axes = {"x": {0: "n"}}
    return export(trained(), x, input_names=["x"], output_names=["y"], dynamic_axes=axes)


def constant_in_the_middle():
    """A NumPy constant that made a part of the graph float64."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=DOUBLE),
        helper.make_node("Mul", ["wide", "third"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["y"], to=FLOAT),
    ]
    return make_model(nodes, {"x": (FLOAT, ["n", 5])}, {"y": (FLOAT, ["n", 5])}, {"third": np.array(1 / 3)})


def lowest_double_mask():
    """-1.8e308 hides scores, which FP32 cannot hold."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=DOUBLE),
        helper.make_node("Cast", ["hide"], ["hidden"], to=TensorProto.BOOL),
        helper.make_node("Where", ["hidden", "lowest", "wide"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("Cast", ["shares"], ["y"], to=FLOAT),
    ]
    inputs = {"x": (FLOAT, [4, 9]), "hide": (INT64, [4, 9])}
    return make_model(nodes, inputs, {"y": (FLOAT, [4, 9])}, {"lowest": np.array(np.finfo(np.float64).min)})


CASES = [
    Case("a model in double precision", whole, before="ok", reference=answers),
    Case("a float64 constant in the middle", constant_in_the_middle, before="ok"),
    Case("a mask of the lowest float64", lowest_double_mask, before="ok"),
]
