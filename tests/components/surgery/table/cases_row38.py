"""Row 38: rare operators."""

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn

INT32, UINT32, STRING = TensorProto.INT32, TensorProto.UINT32, TensorProto.STRING


class Folded(nn.Module):
    """Overlapping windows put together, as in Swin2SR and T2T-ViT."""

    def forward(self, x):
        return nn.functional.fold(x, (7, 8), (3, 2), padding=(1, 0), stride=2, dilation=(1, 2))


def bitwise(op, kind):
    """Numbers of a hash, of both signs; for one with a constant mask."""
    names = ["a"] if op == "BitwiseNot" else ["a", "b"]
    nodes = [helper.make_node(op, names, ["y"])]
    inputs = {name: (kind, [3, 4]) for name in names}
    return make_model(nodes, inputs, {"y": (kind, [3, 4])}, opset=18)


def numbers(rng, *names, dtype=np.int32):
    limits = np.iinfo(dtype)
    drawn = {name: rng.integers(limits.min, limits.max, (3, 4), dtype, endpoint=True) for name in names}
    for values in drawn.values():
        values[0, :3] = limits.min, limits.max, -1
    return drawn


def packed():
    """Four-bit weights unpacked: Cast, BitShift, BitwiseAnd, Cast."""
    nodes = [
        helper.make_node("Cast", ["packed"], ["unsigned"], to=UINT32),
        helper.make_node("BitShift", ["unsigned", "by"], ["moved"], direction="RIGHT"),
        helper.make_node("BitwiseAnd", ["moved", "mask"], ["four"]),
        helper.make_node("Cast", ["four"], ["y"], to=INT32),
    ]
    constants = {"by": np.array([0, 4, 8, 28], np.uint32), "mask": np.array(15, np.uint32)}
    return make_model(nodes, {"packed": (INT32, [3, 4])}, {"y": (INT32, [3, 4])}, constants, opset=18)


def affine_grid(size, corners):
    node = helper.make_node("AffineGrid", ["theta", "size"], ["grid"], align_corners=corners)
    count = len(size) - 2
    inputs = {"theta": (FLOAT, [size[0], count, count + 1])}
    return make_model([node], inputs, {"grid": (FLOAT, None)}, {"size": np.array(size)}, 20, 9)


def single(op, inputs, outputs, constants=None, opset=18, **attributes):
    node = helper.make_node(op, [*inputs, *(constants or {})], list(outputs), name="node", **attributes)
    return make_model([node], inputs, outputs, constants, opset)


def optional():
    """What is known of an Optional: the branch that is taken, and its element."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2, 3]))
    nodes = [
        helper.make_node("Optional", ["x"], ["maybe"], type=helper.make_tensor_type_proto(FLOAT, [2, 3])),
        helper.make_node("OptionalHasElement", ["maybe"], ["has"]),
        helper.make_node("OptionalGetElement", ["maybe"], ["element"]),
        helper.make_node("Where", ["has", "element", "zero"], ["y"]),
    ]
    model = make_model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, {"zero": np.zeros(1, np.float32)}, 18)
    model.graph.value_info.append(helper.make_value_info("maybe", kind))
    return model


CASES = [
    *(
        Case(op, lambda op=op: bitwise(op, INT32), before="reject", feeds=lambda rng: numbers(rng, "a", "b"))
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ),
    Case(
        "BitwiseNot, int64",
        lambda: bitwise("BitwiseNot", INT64),
        before="reject",
        feeds=lambda rng: numbers(rng, "a", dtype=np.int64),
    ),
    Case("unpacking four bits", packed, before="reject", feeds=lambda rng: numbers(rng, "packed")),
    Case(
        "Col2Im",
        lambda: export(Folded(), torch.rand(2, 12, 12), input_names=["x"], output_names=["y"], opset=18),
        before="reject",
    ),
    Case("AffineGrid", lambda: affine_grid([2, 3, 5, 6], 0), before="reject"),
    Case("AffineGrid, 3-D, corners", lambda: affine_grid([1, 2, 3, 4, 5], 1), before="reject"),
    Case(
        "Compress, constant",
        lambda: single(
            "Compress",
            {"x": (FLOAT, [3, 5])},
            {"y": (FLOAT, None)},
            {"c": np.array([True, False, True, True])},
            axis=1,
        ),
        before="reject",
    ),
    Case("Det, 3 x 3", lambda: single("Det", {"x": (FLOAT, [4, 3, 3])}, {"y": (FLOAT, None)}), before="reject"),
    Case("Optional", optional, before="reject"),
    Case(
        "Unique",
        lambda: single("Unique", {"x": (FLOAT, [6])}, {"y": (FLOAT, None)}),
        before="reject",
        after="diagnosis",
    ),
    Case(
        "strings",
        lambda: single("StringNormalizer", {"x": (STRING, [2])}, {"y": (STRING, None)}),
        before="reject",
        after="diagnosis",
        feeds=lambda _: {"x": np.array(["a", "b"], object)},
    ),
    Case(
        "Det, 5 x 5",
        lambda: single("Det", {"x": (FLOAT, [5, 5])}, {"y": (FLOAT, None)}),
        before="reject",
        after="diagnosis",
    ),
]
