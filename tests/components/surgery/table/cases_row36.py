"""Row 36: FP16 and FP32 operands at one operator."""

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from surgery_cases import Case
from surgery_graphs import FLOAT, make_model

HALF = TensorProto.FLOAT16


def forgotten_constants():
    """An FP16 model whose converter left constants in FP32."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"], name="scale it"),
        helper.make_node("MatMul", ["scaled", "w"], ["product"]),
        helper.make_node("Where", ["mask", "product", "zero"], ["y"]),
    ]
    constants = {
        "scale": np.float32(0.5),
        "w": np.eye(4, dtype=np.float16) * 2,
        "mask": np.array([[True, False, True, True]]),
        "zero": np.float32(0),
    }
    return make_model(nodes, {"x": (HALF, ["n", 4])}, {"y": (HALF, ["n", 4])}, constants)


def half_weights():
    """A model whose weights were saved in FP16 and whose input is FP32."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Mul", ["relu", "gain"], ["y"]),
    ]
    constants = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float16), "b": np.ones(4, np.float16)}
    constants |= {"gain": np.array([[[[1.5]], [[2]], [[3]], [[4]]]], np.float16)}
    return make_model(nodes, {"x": (FLOAT, ["n", 3, 6, 6])}, {"y": (FLOAT, ["n", 4, 4, 4])}, constants)


def two_paths():
    """An FP16 and an FP32 path meet in a sum, whose output is declared as FP16."""
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=HALF),
        helper.make_node("Relu", ["half"], ["left"]),
        helper.make_node("Sigmoid", ["x"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["sum"], name="sum"),
        helper.make_node("Concat", ["sum", "left"], ["y"], axis=1),
    ]
    return make_model(nodes, {"x": (FLOAT, ["n", 4])}, {"y": (HALF, ["n", 8])})


# ONNX Runtime does not load such graphs: NumPy and torch, which promote, say what they mean.
def forgotten_constants_mean(feed):
    product = (feed["x"].astype(np.float32) * 0.5) @ (np.eye(4, dtype=np.float32) * 2)
    return {"y": np.where([True, False, True, True], product, 0).astype(np.float16)}


def half_weights_mean(feed):
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in half_weights().graph.initializer}
    x, w, b = (torch.from_numpy(value.astype(np.float32)) for value in (feed["x"], known["w"], known["b"]))
    return {"y": (torch.relu(torch.conv2d(x, w, b)).numpy() * known["gain"]).astype(np.float32)}


def two_paths_mean(feed):
    left = np.maximum(feed["x"].astype(np.float16), 0)
    total = left + 1 / (1 + np.exp(-feed["x"]))
    return {"y": np.concatenate([total, left], 1).astype(np.float16)}


CASES = [
    Case(
        "FP32 constants left in an FP16 model",
        forgotten_constants,
        before="reject",
        reference=forgotten_constants_mean,
        tolerance=2e-3,  # FP16
    ),
    Case("FP16 weights, FP32 input", half_weights, before="reject", reference=half_weights_mean),
    Case("two paths meet", two_paths, before="reject", reference=two_paths_mean, tolerance=2e-3),
]
