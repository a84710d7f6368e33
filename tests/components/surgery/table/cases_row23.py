"""Row 23: GridSample in the naming of opset 20."""

import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model
from torch import nn
from torch.nn import functional

from components.core.contracts.job import Runtime


class Sample(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, x, grid):
        return functional.grid_sample(x, grid, mode=self.mode, padding_mode="zeros", align_corners=False)


def sample(mode):
    given = torch.rand(1, 3, 9, 11), torch.rand(1, 5, 6, 2) * 2 - 1
    return torch.onnx.export(Sample(mode).eval(), given, dynamo=True, verbose=False, opset_version=20).model_proto


def reflected(opset):
    attributes = {"mode": "cubic", "padding_mode": "reflection", "align_corners": 1}
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], name="sample", **attributes)
    inputs = {"x": (FLOAT, ["n", 2, 5, 6]), "grid": (FLOAT, ["n", 3, 4, 2])}
    return make_model([node], inputs, {"y": (FLOAT, list("abcd"))}, None, opset)


CASES = [
    Case("torch, bilinear", lambda: sample("bilinear"), before="ok"),
    Case("torch, bilinear, for TensorRT", lambda: sample("bilinear"), before="ok", target=Runtime.TENSORRT),
    Case("torch, bicubic, for TensorRT", lambda: sample("bicubic"), before="ok", target=Runtime.TENSORRT),
    Case("cubic, reflected, opset 22, for TensorRT", lambda: reflected(22), before="ok", target=Runtime.TENSORRT),
]
