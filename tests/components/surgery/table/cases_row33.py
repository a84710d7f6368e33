"""Row 33: the Indices of MaxPool, and MaxUnpool."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, make_model
from torch import nn
from torch.nn import functional


class SegNet(nn.Module):
    """Encoder and decoder of two levels."""

    def __init__(self):
        super().__init__()
        self.encode = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)])
        self.decode = nn.ModuleList([nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 5, 3, padding=1)])

    def forward(self, x):
        x, first = functional.max_pool2d(self.encode[0](x).relu(), 2, return_indices=True)
        x, second = functional.max_pool2d(self.encode[1](x).relu(), 2, return_indices=True)
        x = self.decode[0](functional.max_unpool2d(x, second, 2)).relu()
        return self.decode[1](functional.max_unpool2d(x, first, 2))


def segnet():
    """As the dynamo exporter writes it: Indices with an offset, and ScatterND."""
    torch.manual_seed(0)
    return torch.onnx.export(SegNet().eval(), (torch.rand(1, 3, 16, 24),), dynamo=True, verbose=False).model_proto


def pooled(*, batch=2, unpool=True, unused=False, middle="Sigmoid", side=(12, 14), shape=None, **attributes):
    """MaxPool, something in between, and MaxUnpool with the same windows."""
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], **attributes}
    nodes = [helper.make_node("MaxPool", ["x"], ["p", "i"], name="pool", **attributes)]
    outputs = {"p": (FLOAT, list("abcd"))} if unused or not unpool else {}
    if not unused and not unpool:
        outputs["i"] = (INT64, list("abcd"))
    constants = {}
    if unpool and not unused:
        same = {name: value for name, value in attributes.items() if name in ("kernel_shape", "strides", "pads")}
        names = ["q", "i"]
        if shape is not None:
            names.append("shape")
            constants["shape"] = np.array(shape)
        nodes += [
            helper.make_node(middle, ["p"], ["q"]),
            helper.make_node("MaxUnpool", names, ["y"], name="un", **same),
        ]
        outputs["y"] = (FLOAT, list("efgh"))
    return make_model(nodes, {"x": (FLOAT, [batch, 3, *side])}, outputs, constants)


CASES = [
    Case("SegNet of two levels, torch", segnet, before="reject"),
    Case("indices that nothing reads", lambda: pooled(unused=True), before="reject"),
    Case("MaxPool and MaxUnpool", pooled, before="reject"),
    Case("the same, open batch", lambda: pooled(batch="n"), before="reject"),
    Case("odd size", lambda: pooled(side=(13, 15), shape=[2, 3, 13, 15]), before="reject"),
    Case(
        "overlapping windows, padded",
        lambda: pooled(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], unpool=False),
        before="reject",
    ),
    Case(
        "dilated, by column, open batch",
        lambda: pooled(batch="n", kernel_shape=[2, 3], dilations=[2, 1], storage_order=1, unpool=False),
        before="reject",
    ),
    Case("windows apart, scattered", lambda: pooled(strides=[3, 3], side=(11, 14)), before="reject"),
]
