"""Row 4: cubic Resize."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn
from torch.nn import functional

from components.core.contracts.job import Runtime

OPEN = ["a", "b", "c", "d"]


class Bicubic(nn.Module):
    def __init__(self, *, align_corners):
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x):
        return functional.interpolate(x, size=(21, 17), mode="bicubic", align_corners=self.align_corners)


def bicubic(*, align_corners, **options):
    return export(Bicubic(align_corners=align_corners), torch.rand(1, 3, 14, 28), input_names=["x"], **options)


def excluded():
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)
    constants = {"scales": np.array([1, 1, 1.7, 0.6], np.float32)}
    return make_model([node], {"x": (FLOAT, ["n", 2, 13, 19])}, {"y": (FLOAT, OPEN)}, constants)


CASES = [
    Case("torch, as TensorRT-RTX takes it", lambda: bicubic(align_corners=False), before="ok", changes=False),
    Case("torch, for TensorRT", lambda: bicubic(align_corners=False), before="ok", target=Runtime.TENSORRT),
    Case(
        "torch, aligned corners, open batch, for TensorRT",
        lambda: bicubic(align_corners=True, dynamic_axes={"x": {0: "n"}}),
        before="ok",
        target=Runtime.TENSORRT,
    ),
    Case("exclude_outside, for TensorRT", excluded, before="ok", target=Runtime.TENSORRT),
]
