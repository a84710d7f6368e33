"""Row 22: GridSample of volumes."""

import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model
from torch import nn
from torch.nn import functional

from components.core.contracts.job import Runtime


class Warp(nn.Module):
    """Warps a volume, as registration networks do."""

    def forward(self, x, grid):
        return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def warp():
    given = torch.rand(1, 2, 5, 6, 7), torch.rand(1, 3, 4, 5, 3) * 2 - 1
    return torch.onnx.export(Warp().eval(), given, dynamo=True, verbose=False, opset_version=20).model_proto


def volume(mode, padding, batch="n"):
    node = helper.make_node(
        "GridSample", ["x", "grid"], ["y"], name="sample", mode=mode, padding_mode=padding, align_corners=1
    )
    inputs = {"x": (FLOAT, [batch, 2, 5, 6, 7]), "grid": (FLOAT, [batch, 3, 4, 5, 3])}
    return make_model([node], inputs, {"y": (FLOAT, list("abcde"))}, None, opset=20)


CASES = [
    Case("torch, linear, as TensorRT-RTX takes it", warp, before="ok", by=23),
    Case("torch, linear, for TensorRT", warp, before="ok", target=Runtime.TENSORRT),
    Case("nearest, zeros outside, for TensorRT", lambda: volume("nearest", "zeros"), "ok", target=Runtime.TENSORRT),
    Case("linear, reflected, for TensorRT", lambda: volume("linear", "reflection"), "ok", target=Runtime.TENSORRT),
]
