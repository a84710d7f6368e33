"""Row 11: INT64 sentinels."""

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from surgery_graphs import BOOL, FLOAT, INT64, assert_untouched, make_model, ops, surgered, worst

LARGEST, SMALLEST = 2**63 - 1, -(2**63)
BOUNDS = st.sampled_from([LARGEST, SMALLEST, LARGEST - 1, 2**31, -(2**31) - 1, 2**40, -3, 0, 2, 9])


def beyond_int32(model):
    tensors = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [values for values in tensors if values.dtype == np.int64 and (np.abs(values.astype(float)) > 2**31).any()]


def sliced(start, end, axis, step):
    node = helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["y"])
    constants = {"start": [start], "end": [end], "axis": [axis], "step": [step]}
    constants = {name: np.array(values, np.int64) for name, values in constants.items()}
    return make_model([node], {"x": (FLOAT, [4, 6])}, {"y": (FLOAT, ["a", "b"])}, constants)


@settings(max_examples=40, deadline=None)
@given(BOUNDS, BOUNDS, st.sampled_from([0, 1, -1, -2]), st.sampled_from([1, 2, -1, -3]))
def test_every_slice_keeps_its_elements(start, end, axis, step):
    before = sliced(start, end, axis, step)
    after = surgered(before)
    assert beyond_int32(after) == []
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert worst(before, after, [{"x": x}]) == 0


def test_a_constant_that_is_a_number_elsewhere_stays_there():
    nodes = [
        helper.make_node("Slice", ["x", "zero", "end", "zero"], ["y"]),
        helper.make_node("Equal", ["ids", "end"], ["last"]),
    ]
    inputs = {"x": (FLOAT, [4]), "ids": (INT64, [3])}
    constants = {"zero": np.array([0]), "end": np.array([LARGEST])}
    before = make_model(nodes, inputs, {"y": (FLOAT, [4]), "last": (BOOL, [3])}, constants)
    after = surgered(before)
    assert [values.tolist() for values in beyond_int32(after)] == [[LARGEST]]
    feed = {"x": np.ones(4, np.float32), "ids": np.array([1, LARGEST, 2**31 - 1])}
    assert worst(before, after, [feed]) == 0
    onnx.checker.check_model(after)


def test_large_numbers_are_untouched():
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    assert_untouched(make_model(nodes, {"x": (INT64, [2])}, {"y": (INT64, [2])}, {"c": np.array([2**40])}), 11)
    clip = [helper.make_node("Clip", ["x", "low", "high"], ["y"])]
    bounds = {"low": np.array(-5), "high": np.array(2**40)}
    assert_untouched(make_model(clip, {"x": (INT64, [2])}, {"y": (INT64, [2])}, bounds), 11)
    concat = [helper.make_node("Concat", ["x", "c"], ["y"], axis=0)]
    assert_untouched(make_model(concat, {"x": (INT64, [2])}, {"y": (INT64, [3])}, {"c": np.array([LARGEST])}), 11)


def test_a_clip_without_bounds_keeps_the_other_one():
    node = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    bounds = {"low": np.array(SMALLEST), "high": np.array(7)}
    before = make_model([node], {"x": (INT64, [3])}, {"y": (INT64, [3])}, bounds)
    after = surgered(before)
    assert ops(after) == {"Clip"}
    assert worst(before, after, [{"x": np.array([-(2**50), 7, 8])}]) == 0
