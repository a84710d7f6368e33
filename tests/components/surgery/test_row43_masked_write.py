"""Row 43: what the table does not show: other forms, types, and scatters that are none of its business."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from surgery_graphs import BOOL, FLOAT, INT64, assert_untouched, make_model, ops, surgered, worst


def masked(kind=FLOAT, shape=(4, 5), mask=(4, 5), value=(), mask_kind=BOOL, target=None):
    """``x[mask] = value`` with Expand to as many rows as the mask selects."""
    rest = list(shape[len(mask) :])
    nodes = [
        helper.make_node("NonZero", ["mask"], ["places"]),
        helper.make_node("Transpose", ["places"], ["index"], perm=[1, 0]),
        helper.make_node("Cast", ["mask"], ["ones"], to=INT64),
        helper.make_node("ReduceSum", ["ones"], ["many"], keepdims=0),
        helper.make_node("Reshape", ["many", "one"], ["count"]),
        helper.make_node("Concat", ["count", "rest"], ["size"], axis=0),
        helper.make_node("Expand", ["value", "size"], ["values"]),
        helper.make_node("ScatterND", ["x", "index", "values"], ["y"]),
    ]
    constants = {"one": np.array([1]), "rest": np.array(rest if target is None else target, np.int64)}
    inputs = {"x": (kind, list(shape)), "mask": (mask_kind, list(mask)), "value": (kind, list(value))}
    return make_model(nodes, inputs, {"y": (kind, list(shape))}, constants)


@pytest.mark.parametrize("value", [(), (1,), (3,), (5, 3), (1, 3), (5, 1)])
def test_a_mask_over_the_first_axes(value):
    before = masked(shape=(4, 5, 3), mask=(4,), value=value)
    check(before)


@pytest.mark.parametrize(
    ("kind", "dtype"), [(BOOL, np.bool_), (INT64, np.int64), (TensorProto.INT32, np.int32), (FLOAT, np.float32)]
)
def test_types(kind, dtype):
    check(masked(kind), dtype)


def test_a_mask_of_integers():
    check(masked(mask_kind=TensorProto.INT32), mask=np.int32)


def check(before, dtype=np.float32, mask=np.bool_):
    after = surgered(before, only=[43])
    assert "ScatterND" not in ops(after)
    rng = np.random.default_rng(0)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in before.graph.input}
    feed = {name: rng.integers(0, 2, shape).astype(dtype) for name, shape in shapes.items()}
    for selected in (rng.random(shapes["mask"]) < 0.5, np.zeros(shapes["mask"]), np.ones(shapes["mask"])):
        assert worst(before, after, [feed | {"mask": np.asarray(selected).astype(mask)}]) == 0


def test_values_that_differ_from_place_to_place_are_not_touched():
    nodes = [
        helper.make_node("NonZero", ["mask"], ["places"]),
        helper.make_node("Transpose", ["places"], ["index"], perm=[1, 0]),
        helper.make_node("GatherND", ["x", "index"], ["picked"]),
        helper.make_node("Exp", ["picked"], ["values"]),
        helper.make_node("ScatterND", ["x", "index", "values"], ["y"]),
    ]
    inputs = {"x": (FLOAT, [4, 5]), "mask": (BOOL, [4, 5])}
    assert_untouched(make_model(nodes, inputs, {"y": (FLOAT, [4, 5])}), 43)
