"""Constant folding: what can be computed is, what would blow the model up or says where INT8 is meant stays."""

import numpy as np
import torch
from onnx import helper
from surgery_graphs import FLOAT, INT64, assert_untouched, export, make_model, ops, surgered, worst
from torch import nn

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgeries.fold_constants import MAX_GROWTH

X = {"x": (FLOAT, [2, 3])}
FEED = [{"x": np.arange(6, dtype=np.float32).reshape(2, 3)}]


class Reshaped(nn.Module):
    def forward(self, x):
        return x.view(x.shape[0], -1) + torch.arange(x.shape[1] * x.shape[2]) / 2


def test_shape_arithmetic_of_a_fixed_shape_folds():
    before = export(Reshaped(), torch.rand(2, 3, 4), input_names=["x"])
    after = surgered(before)
    assert ops(after) == {"Reshape", "Add"}
    assert worst(before, after, [{"x": np.random.default_rng(0).random((2, 3, 4), np.float32)}]) == 0


def test_what_would_blow_the_model_up_stays():
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    for size in (MAX_GROWTH, 2**40):
        model = make_model(nodes, X, {"y": (FLOAT, [2, 3])}, {"size": np.array([size])})
        after, _ = operate(model, Runtime.TENSORRT, only=[0], seeds=())
        assert after is model
    small = make_model(nodes, X, {"y": (FLOAT, [2, 3])}, {"size": np.array([9])})
    assert ops(surgered(small)) == {"Add"}


def test_quantization_of_weights_stays():
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    constants = {"w": np.eye(3, dtype=np.float32), "scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}
    assert_untouched(make_model(nodes, X, {"y": (FLOAT, [2, 3])}, constants), 0)


def test_random_numbers_are_not_drawn_once_and_for_all():
    nodes = [
        helper.make_node("RandomUniformLike", ["c"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    assert_untouched(make_model(nodes, X, {"y": (FLOAT, [2, 3])}, {"c": np.zeros((2, 3), np.float32)}), 0)


def test_a_constant_output_stays_an_output():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    before = make_model(nodes, X, {"y": (FLOAT, [2, 3]), "shape": (INT64, [2])})
    after = surgered(before)
    assert [output.name for output in after.graph.output] == ["y", "shape"]
    assert worst(before, after, FEED) == 0


def test_a_node_that_fails_stays():
    """Index 9 of two rows: an error at run time, and none of folding's."""
    nodes = [
        helper.make_node("Gather", ["c", "nine"], ["g"]),
        helper.make_node("Add", ["x", "g"], ["y"]),
    ]
    model = make_model(nodes, X, {"y": (FLOAT, [2, 3])}, {"c": np.ones((2, 3), np.float32), "nine": np.array(9)})
    after, _ = operate(model, Runtime.TENSORRT, only=[0])
    assert after is model
