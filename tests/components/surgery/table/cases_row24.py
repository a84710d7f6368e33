"""Row 24: Einsum with three inputs, an ellipsis, a diagonal."""

import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn


class Attention(nn.Module):
    """Scores and values of a window in one equation, with a bias for each head."""

    def forward(self, q, k, v):
        return torch.einsum("...qd,...kd,...kc->...qc", q, k, v)


def attention(axes=None):
    parts = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 6, 5), torch.rand(2, 3, 6, 7)
    return export(Attention(), *parts, input_names=["q", "k", "v"], output_names=["y"], dynamic_axes=axes)


def einsum(equation, *shapes):
    names = "abcd"[: len(shapes)]
    node = helper.make_node("Einsum", list(names), ["y"], equation=equation)
    inputs = {name: (FLOAT, shape) for name, shape in zip(names, shapes, strict=True)}
    return make_model([node], inputs, {"y": (FLOAT, None)})


CASES = [
    Case("traced, ellipsis and three inputs", attention, before="ok"),
    Case("traced, open batch", lambda: attention({name: {0: "n"} for name in "qkv"}), before="ok"),
    Case("a bilinear form", lambda: einsum("bi,oij,bj->bo", [3, 4], [5, 4, 6], [3, 6]), before="ok"),
    Case("four inputs, two sums", lambda: einsum("ab,bc,cd,ad->bd", [2, 3], [3, 4], [4, 5], [2, 5]), before="ok"),
    Case("ellipsis that broadcasts, no output", lambda: einsum("...ij,j...", [1, 2, 3, 4], [4, 5, 2]), before="ok"),
    Case("trace", lambda: einsum("bii->b", [3, 4, 4]), before="ok"),
]
