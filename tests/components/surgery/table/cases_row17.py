"""Row 17: TopK whose K is computed at run time."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn


class Best(nn.Module):
    """The best scores of a level, as torchvision's RPN chooses them; images and channels stay as they are."""

    def forward(self, x):
        flat = x.flatten(1)
        count = torch.minimum(torch.tensor(50), torch._shape_as_tensor(flat)[1])
        return flat.topk(count, dim=1)


def traced():
    return export(
        Best(),
        torch.rand(2, 3, 8, 9),
        input_names=["x"],
        output_names=["values", "indices"],
        dynamic_axes={"x": {0: "images"}},
    )


def halved(opset=17):
    """K is half of the columns; the rows are open, and K is computed from a vector of both."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Div", ["shape", "two"], ["half"]),
        helper.make_node("Slice", ["half", "one", "two_1d"], ["k"]),
        helper.make_node("TopK", ["x", "k"], ["values", "indices"], axis=1),
    ]
    constants = {"two": np.array(2), "one": np.array([1]), "two_1d": np.array([2])}
    outputs = {"values": (FLOAT, None), "indices": (INT64, None)}
    return make_model(nodes, {"x": (FLOAT, ["n", 9])}, outputs, constants, opset)


CASES = [
    Case("best of a level, open batch", traced, before="ok"),
    Case("half of the columns, open rows", halved, before="ok"),
    Case("opset 13", lambda: halved(13), before="ok"),
]
