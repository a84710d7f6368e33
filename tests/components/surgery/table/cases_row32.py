"""Row 32: dilated MaxPool."""

import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn


def torch_pool(module, *shape, **options):
    return export(module, torch.rand(shape), input_names=["x"], **options)


def pool(shape, opset=17, **attributes):
    node = helper.make_node("MaxPool", ["x"], ["y"], name="pool", **attributes)
    return make_model(
        [node], {"x": (FLOAT, shape)}, {"y": (FLOAT, ["abcde"[i] for i in range(len(shape))])}, None, opset
    )


CASES = [
    Case(
        "torch, padded, rounded up",
        lambda: torch_pool(nn.MaxPool2d(3, 2, 1, 2, ceil_mode=True), 2, 3, 21, 18),
        "reject",
    ),
    Case(
        "torch, open size",
        lambda: torch_pool(nn.MaxPool2d(3, 1, 1, 2), 1, 3, 12, 12, dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}}),
        before="reject",
    ),
    Case("torch, one dimension", lambda: torch_pool(nn.MaxPool1d(4, 3, 1, 3), 1, 2, 40), before="reject"),
    Case("torch, three dimensions", lambda: torch_pool(nn.MaxPool3d(2, 2, 1, 3), 1, 2, 9, 11, 8), before="reject"),
    Case(
        "VALID, one axis",
        lambda: pool([1, 2, 13, 16], kernel_shape=[3, 2], dilations=[1, 3], strides=[2, 1], auto_pad="VALID"),
        before="reject",
    ),
    Case("kernel of one place", lambda: pool([1, 2, 9, 8], kernel_shape=[1, 1], dilations=[2, 2]), before="reject"),
]
