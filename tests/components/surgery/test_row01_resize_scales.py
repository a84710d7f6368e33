"""Row 1: Resize whose scales hide behind other nodes."""

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from surgery_graphs import FLOAT, INT64, assert_untouched, export, make_model, needs_rtx, ops, rtx, surgered, worst
from torch import nn
from torch.nn import functional

from components.core.contracts.job import Runtime
from components.surgery.operate import operate


def constant(name, values):
    tensor = numpy_helper.from_array(np.asarray(values), name)
    return helper.make_node("Constant", [], [name], value=tensor)


def behind_constants():
    """Scales = Concat(Constant, Identity(Cast(Constant))), as older exporters write them."""
    nodes = [
        constant("ones", np.ones(2, np.float32)),
        constant("integers", np.array([2, 3])),
        helper.make_node("Cast", ["integers"], ["factors"], to=FLOAT),
        helper.make_node("Identity", ["factors"], ["same"]),
        helper.make_node("Concat", ["ones", "same"], ["scales"], axis=0),
        helper.make_node("Resize", ["x", "", "scales"], ["y"], name="resize", mode="linear"),
    ]
    return make_model(nodes, {"x": (FLOAT, [1, 2, 5, 7])}, {"y": (FLOAT, [1, 2, 10, 21])})


class Doubled(nn.Module):
    """An FPN's upsampling to the size of another map, here of an open batch, height and width."""

    def forward(self, x):
        return functional.interpolate(x, size=[x.shape[2] * 2, x.shape[3] * 2], mode="nearest")


class ToSizeOf(nn.Module):
    def forward(self, x, y):
        return functional.interpolate(x, size=y.shape[-2:], mode="bilinear")


def scales_of(model):
    (node,) = [node for node in model.graph.node if node.op_type == "Resize"]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    name = node.input[3] if len(node.input) > 3 and node.input[3] else node.input[2]
    return constants.get(name)


@pytest.mark.parametrize("target", [Runtime.TENSORRT_RTX, Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_scales_behind_constants_become_an_initializer(target):
    before = behind_constants()
    assert scales_of(before) is None
    after = surgered(before, target)
    assert ops(after) == {"Resize"}
    np.testing.assert_array_equal(scales_of(after), [1, 1, 2, 3])
    feeds = [{"x": np.random.default_rng(seed).random((1, 2, 5, 7), np.float32)} for seed in range(3)]
    assert worst(before, after, feeds) == 0


def test_a_size_computed_from_an_open_shape_becomes_constant_scales():
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    before = export(Doubled(), torch.rand(1, 2, 6, 8), input_names=["x"], output_names=["y"], dynamic_axes=axes)
    assert scales_of(before) is None
    after = surgered(before)
    np.testing.assert_array_equal(scales_of(after), [1, 1, 2, 2])
    shapes = [(1, 2, 6, 8), (3, 2, 5, 9), (1, 2, 1, 1)]
    feeds = [{"x": np.random.default_rng(0).random(shape, np.float32)} for shape in shapes]
    assert worst(before, after, feeds) == 0


@needs_rtx
def test_both_build():
    for before in (
        behind_constants(),
        export(Doubled(), torch.rand(1, 2, 6, 8), input_names=["x"], dynamic_axes={"x": {0: "n"}}),
    ):
        assert rtx(before).stage == "ok"
        assert rtx(surgered(before))[::2] == ("ok", 0)


def test_fixed_shapes_fold_to_constant_sizes():
    arguments = torch.rand(1, 2, 6, 8), torch.rand(1, 2, 13, 17)
    before = export(ToSizeOf(), *arguments, input_names=["x", "y"])  # the exporter itself drops y
    after = surgered(before)
    assert ops(after) == {"Resize"}
    assert scales_of(after) is not None
    assert worst(before, after, [{"x": arguments[0].numpy()}]) == 0


def test_a_size_that_is_no_constant_multiple_is_left():
    arguments = torch.rand(1, 2, 6, 8), torch.rand(1, 2, 13, 17)
    axes = {"y": {2: "h", 3: "w"}}
    model = export(ToSizeOf(), *arguments, input_names=["x", "y"], dynamic_axes=axes)
    after, report = operate(model, Runtime.TENSORRT, only=[0, 1])
    assert "Resize" in ops(after)
    assert report.left == []
    assert scales_of(after) is None


def test_a_scale_that_would_round_the_size_down_is_not_written():
    """5 / 11 in float32, times 11, is below 5."""
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], end=1),
        helper.make_node("Concat", ["batch", "rest"], ["sizes"], axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="resize", mode="linear"),
    ]
    sides = np.arange(2, 400)
    bad = next(n for n in sides if np.floor(np.float64(np.float32(5 / n)) * n) < 5)
    given = {"x": (FLOAT, ["n", 1, int(bad), int(bad)])}
    model = make_model(nodes, given, {"y": (FLOAT, None)}, {"rest": np.array([1, 5, 5])})
    after, report = operate(model, Runtime.TENSORRT, only=[0, 1])
    assert scales_of(after) is None
    assert report.records == []


def rounded(factor):
    """Sizes = Floor(shape * factor): a multiple only where nothing is rounded."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["float_shape"], to=FLOAT),
        helper.make_node("Mul", ["float_shape", "factors"], ["product"]),
        helper.make_node("Floor", ["product"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["sizes"], to=INT64),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="resize", mode="nearest"),
    ]
    factors = {"factors": np.array([1, 1, factor, factor], np.float32)}
    return make_model(nodes, {"x": (FLOAT, ["n", 1, "h", "w"])}, {"y": (FLOAT, None)}, factors)


def test_a_rounded_multiple_does_not_pass_for_an_exact_one():
    after, report = operate(rounded(1.5), Runtime.TENSORRT)
    assert scales_of(after) is None
    assert report.records == []
    np.testing.assert_array_equal(scales_of(surgered(rounded(3.0))), [1, 1, 3, 3])


def test_graphs_without_the_pattern_are_untouched():
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"])]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    assert_untouched(make_model(nodes, {"x": (FLOAT, [1, 1, 2, 2])}, {"y": (FLOAT, [1, 1, 4, 4])}, scales), 1)
