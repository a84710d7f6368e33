"""Row 3: antialiased Resize."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model
from torch import nn
from torch.nn import functional

OPEN = ["a", "b", "c", "d"]


class Interpolate(nn.Module):
    def __init__(self, mode, size):
        super().__init__()
        self.mode, self.size = mode, size

    def forward(self, x):
        return functional.interpolate(x, size=self.size, mode=self.mode, antialias=True)


def exported(mode, size, given, **options):
    """As the dynamo exporter writes it; the TorchScript one cannot."""
    return torch.onnx.export(
        Interpolate(mode, size).eval(), (torch.rand(given),), dynamo=True, verbose=False, **options
    ).model_proto


def resize(shape, sizes, opset=18, **attributes):
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="resize", antialias=1, **attributes)
    return make_model(
        [node], {"x": (FLOAT, shape)}, {"y": (FLOAT, OPEN[: len(shape)])}, {"sizes": np.array(sizes)}, opset
    )


CASES = [
    Case("torch, bilinear, smaller", lambda: exported("bilinear", (15, 20), (1, 3, 37, 64)), before="reject"),
    Case("torch, bicubic, smaller", lambda: exported("bicubic", (9, 50), (1, 3, 40, 51)), before="reject"),
    Case("torch, bilinear, larger", lambda: exported("bilinear", (40, 33), (1, 3, 20, 30)), before="reject"),
    Case(
        "torch, open batch",
        lambda: exported("bilinear", (15, 20), (2, 3, 37, 64), dynamic_shapes=({0: "n"},)),
        before="reject",
    ),
    Case("one axis of three", lambda: resize([2, 5, 40], [2, 5, 17], mode="linear"), before="reject"),
    Case(
        "axes, channels last",
        lambda: resize(
            [1, 33, 48, 3], [12, 48], mode="linear", axes=[1, 2], coordinate_transformation_mode="asymmetric"
        ),
        before="reject",
    ),
]
