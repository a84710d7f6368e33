"""Row 29: a layer normalization spelled out."""

import numpy as np
import torch
from onnx import TensorProto, helper
from surgery_cases import Case
from surgery_graphs import FLOAT, export, make_model
from torch import nn

HALF = TensorProto.FLOAT16


def exported(affine, sizes=(6,)):
    """As torch writes it below opset 17."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(sizes, elementwise_affine=affine), nn.ReLU())
    for weights in module.parameters():
        nn.init.normal_(weights)
    axes = {"x": {0: "n"}}
    x = torch.rand(2, 5, 6)
    return export(module, x, opset=16, input_names=["x"], output_names=["y"], dynamic_axes=axes)


def half():
    """The same in FP16, as a converter leaves it."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[-1]),
        helper.make_node("Add", ["variance", "epsilon"], ["padded"]),
        helper.make_node("Sqrt", ["padded"], ["deviation"], name="root"),
        helper.make_node("Div", ["centred", "deviation"], ["normal"]),
        helper.make_node("Mul", ["normal", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["y"]),
    ]
    constants = {
        "two": np.float16(2),
        "epsilon": np.float16(1e-5),
        "scale": np.arange(1, 9).astype(np.float16) / 4,
        "bias": np.arange(8).astype(np.float16),
    }
    return make_model(nodes, {"x": (HALF, ["n", 4, 8])}, {"y": (HALF, ["n", 4, 8])}, constants)


def tensorflow():
    """As tf2onnx writes tf.keras.layers.LayerNormalization."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[2]),
        helper.make_node("Add", ["variance", "epsilon"], ["padded"]),
        helper.make_node("Sqrt", ["padded"], ["deviation"], name="root"),
        helper.make_node("Reciprocal", ["deviation"], ["inverse"]),
        helper.make_node("Mul", ["inverse", "gamma"], ["k"]),
        helper.make_node("Mul", ["x", "k"], ["scaled"]),
        helper.make_node("Mul", ["mean", "k"], ["moved"]),
        helper.make_node("Sub", ["beta", "moved"], ["offset"]),
        helper.make_node("Add", ["scaled", "offset"], ["y"]),
    ]
    constants = {
        "epsilon": np.float32(1e-3),
        "gamma": np.arange(1, 9).astype(np.float32) / 4,
        "beta": np.arange(8).astype(np.float32),
    }
    return make_model(nodes, {"x": (FLOAT, ["n", 4, 8])}, {"y": (FLOAT, ["n", 4, 8])}, constants)


CASES = [
    Case("torch, opset 16", lambda: exported(affine=True), before="ok"),
    Case("torch without scale and bias", lambda: exported(affine=False), before="ok"),
    Case("torch over two axes", lambda: exported(affine=True, sizes=(5, 6)), before="ok"),
    Case("FP16", half, before="ok", tolerance=5e-3),
    Case("tf.keras", tensorflow, before="ok"),
]
