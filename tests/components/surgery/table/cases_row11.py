"""Row 11: INT64 sentinels."""

import numpy as np
import torch
from onnx import helper
from surgery_cases import Case
from surgery_graphs import FLOAT, INT64, export, make_model
from torch import nn

LARGEST, SMALLEST = 2**63 - 1, -(2**63)


class Ends(nn.Module):
    def forward(self, x):
        return x[:, 1:, ::2], x[..., -3:]


def exported():
    names = {"input_names": ["x"], "output_names": ["y", "z"]}
    return export(Ends(), torch.rand(2, 5, 7), dynamic_axes={"x": {0: "n", 2: "w"}}, **names)


def backwards():
    """x[..., ::-1]: from the end to before the beginning."""
    node = helper.make_node("Slice", ["x", "from", "to", "axes", "steps"], ["y"], name="turn")
    constants = {"from": np.array([LARGEST]), "to": np.array([SMALLEST])}
    constants |= {"axes": np.array([-1]), "steps": np.array([-1])}
    return make_model([node], {"x": (FLOAT, ["n", 5])}, {"y": (FLOAT, ["n", 5])}, constants)


def joined():
    """One end is computed from a shape, the other a sentinel."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["size"]),
        helper.make_node("Sub", ["size", "one"], ["last"]),
        helper.make_node("Concat", ["last", "end"], ["ends"], axis=0, name="ends"),
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"]),
    ]
    constants = {"first": np.array([0]), "one": np.array([1]), "end": np.array([LARGEST])}
    constants |= {"starts": np.array([0, 1]), "axes": np.array([0, 1])}
    return make_model(nodes, {"x": (FLOAT, ["n", 5])}, {"y": (FLOAT, ["m", 4])}, constants)


def clamped():
    """clamp(min=3) of integers, with the other end written out."""
    node = helper.make_node("Clip", ["x", "three", "largest"], ["y"], name="clamp")
    constants = {"three": np.array(3), "largest": np.array(LARGEST)}
    return make_model([node], {"x": (INT64, ["n"])}, {"y": (INT64, ["n"])}, constants)


CASES = [
    Case("x[:, 1:, ::2] and x[..., -3:]", exported, before="ok"),
    Case("x[..., ::-1]", backwards, before="ok"),
    Case("an end behind a Concat", joined, before="ok"),
    Case("a Clip that bounds nothing", clamped, before="ok", feeds=lambda rng: {"x": rng.integers(-9, 9, 8)}),
]
