"""Row 1: Resize whose scales hide behind other nodes."""

import numpy as np
import torch
from onnx import helper, numpy_helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn
from torch.nn import functional


class DoubledBySize(nn.Module):
    def forward(self, x):
        return functional.interpolate(x, size=(x.shape[2] * 2, x.shape[3] * 2), mode="nearest")


def hidden(op):
    """The scales behind `op`: an Identity, a Constant node or a Concat of parts."""
    scales = np.array([1, 1, 2, 3], np.float32)
    constants = {"scales": scales}
    if op == "Constant":
        nodes, constants = [helper.make_node("Constant", [], ["hidden"], value=numpy_helper.from_array(scales))], {}
    elif op == "Concat":
        nodes = [helper.make_node("Concat", ["ones", "factors"], ["hidden"], axis=0)]
        constants = {"ones": scales[:2], "factors": scales[2:]}
    else:
        nodes = [helper.make_node("Identity", ["scales"], ["hidden"])]
    nodes.append(helper.make_node("Resize", ["x", "", "hidden"], ["y"], mode="linear"))
    return make_model(nodes, {"x": (FLOAT, [1, 3, 8, 9])}, {"y": (FLOAT, [1, 3, 16, 27])}, constants)


CASES = [
    *(
        Case(f"scales behind {op}", lambda op=op: hidden(op), before="ok", by=0)
        for op in ("Identity", "Constant", "Concat")
    ),
    Case(
        "size computed from an open shape",
        lambda: export(
            DoubledBySize(),
            torch.rand(1, 3, 8, 8),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {2: "height", 3: "width"}},
        ),
        before="ok",
        feeds=lambda rng: {"x": rng.random((1, 3, *rng.integers(4, 20, 2))).astype(np.float32)},
    ),
]
