"""Row 10: INT16, UINT16, UINT32, UINT64."""

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn

INT16, UINT32 = TensorProto.INT16, TensorProto.UINT32


class Shorts(nn.Module):
    def forward(self, x):
        steps = (x * 100).to(torch.int16)
        return torch.where(steps.flip(-1) > 50, x, steps.float())


def through(kind):
    """INT64 cut to a smaller type and back, compared on the way."""
    nodes = [
        helper.make_node("Cast", ["x"], ["cut"], to=kind),
        helper.make_node("Concat", ["cut", "more"], ["joined"], axis=1),
        helper.make_node("Cast", ["joined"], ["y"], to=INT64),
    ]
    more = np.array([[7, 9], [100, 3]], helper.tensor_dtype_to_np_dtype(kind))
    return make_model(nodes, {"x": (INT64, [2, "n"])}, {"y": (INT64, [2, "m"])}, {"more": more})


def input_of(kind):
    nodes = [helper.make_node("Cast", ["x"], ["floats"], to=FLOAT), helper.make_node("Sqrt", ["floats"], ["y"])]
    return make_model(nodes, {"x": (kind, [2, 3])}, {"y": (FLOAT, [2, 3])})


def wide(rng):
    return {"x": rng.integers(-(2**33), 2**33, (2, 5))}


CASES = [
    Case(
        "x.to(int16), flipped and compared",
        lambda: export(Shorts(), torch.randn(3, 4), input_names=["x"], output_names=["y"]),
        before="reject",
    ),
    *(
        Case(f"INT64 cut to {TensorProto.DataType.Name(kind)}", lambda kind=kind: through(kind), "reject", feeds=wide)
        for kind in (INT16, TensorProto.UINT16, UINT32)
    ),
    Case("an INT16 input", lambda: input_of(INT16), before="reject"),
    Case("a UINT32 input", lambda: input_of(UINT32), before="reject"),
]
