"""Row 42: what raising the opset does to old resizes; row 31: pads that are or are not always the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from surgery_graphs import BOOL, FLOAT, assert_untouched, make_model, ops, surgered, worst

from components.core.contracts.job import Runtime


def resize(opset, mode, scales):
    op = "Resize" if opset == 10 else "Upsample"
    node = helper.make_node(op, ["x", "scales"], ["y"], name="up", mode=mode)
    constants = {"scales": np.array([1, 1, *scales], np.float32)}
    return make_model([node], {"x": (FLOAT, [1, 2, 7, 9])}, {"y": (FLOAT, list("abcd"))}, constants, opset)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([9, 10]), st.sampled_from(["nearest", "linear"]), st.floats(1.0, 3.0), st.floats(1.0, 3.0))
def test_any_factor_keeps_its_numbers(opset, mode, height, width):
    before = resize(opset, mode, (height, width))
    after = surgered(before, Runtime.ONNXRUNTIME)
    assert ops(after) == {"Resize"}
    assert after.opset_import[0].version >= 16
    assert worst(before, after, [{"x": np.random.default_rng(0).random((1, 2, 7, 9), np.float32)}]) <= 1e-6


def test_one_in_a_branch_is_found():
    """The converter raises the opset of bodies too."""
    branches = {}
    for name, node in {
        "then_branch": helper.make_node("Upsample", ["x", "scales"], ["a"], mode="linear"),
        "else_branch": helper.make_node("Tile", ["x", "repeats"], ["b"]),
    }.items():
        value = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [1, 2, 14, 18])
        branches[name] = helper.make_graph([node], name, [], [value])
    chosen = helper.make_node("If", ["c"], ["y"], **branches)
    constants = {"scales": np.array([1, 1, 2, 2], np.float32), "repeats": np.array([1, 1, 2, 2])}
    inputs = {"x": (FLOAT, [1, 2, 7, 9]), "c": (BOOL, [])}
    before = make_model([chosen], inputs, {"y": (FLOAT, [1, 2, 14, 18])}, constants, opset=9)
    after = surgered(before, Runtime.ONNXRUNTIME)
    x = np.random.default_rng(0).random((1, 2, 7, 9), np.float32)
    assert worst(before, after, [{"x": x, "c": np.array(flag)} for flag in (True, False)]) <= 1e-6


@pytest.mark.parametrize("opset", [11, 17])
def test_later_resizes_are_untouched(opset):
    node = helper.make_node("Resize", ["x", "roi", "scales"], ["y"])
    constants = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    inputs = {"x": (FLOAT, [1, 1, 2, 2])}
    assert_untouched(make_model([node], inputs, {"y": (FLOAT, [1, 1, 4, 4])}, constants, opset), 42)
