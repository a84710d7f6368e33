"""Rows 20 and 44: any shapes, indices, operators and reductions; what stays and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, INT64, RTX, assert_untouched, make_model, ops, surgered, worst

from components.surgery.operate import operate
from components.surgery.surgery import Outcome

KINDS = {FLOAT: np.float32, TensorProto.INT32: np.int32}
REDUCTIONS = ("add", "mul", "max", "min")


def scatter(op, shapes, reduction, kind=FLOAT, index=None, **attributes):
    """`index`: its values, where they are constant."""
    node = helper.make_node(op, ["x", "index", "update"], ["y"], name="scatter", reduction=reduction, **attributes)
    inputs = {"x": (kind, shapes[0]), "index": (INT64, shapes[1]), "update": (kind, shapes[2])}
    constants = {}
    if index is not None:
        constants["index"] = index
        del inputs["index"]
    return make_model([node], inputs, {"y": (kind, shapes[0])}, constants, opset=18)


def values(rng, shape, kind):
    drawn = rng.standard_normal(shape) if kind == FLOAT else rng.integers(-5, 6, shape)
    return drawn.astype(KINDS[kind])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    data=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    reduction=st.sampled_from(REDUCTIONS),
    kind=st.sampled_from(sorted(KINDS)),
    fixed=st.booleans(),
    draw=st.data(),
)
def test_scatter_elements(seed, data, reduction, kind, fixed, draw):
    rng = np.random.default_rng(seed)
    axis = draw.draw(st.integers(-len(data), len(data) - 1))
    shape = [draw.draw(st.integers(1, size)) for size in data]
    shape[axis] = draw.draw(st.integers(1, 7))
    index = rng.integers(-data[axis], data[axis], shape)
    if draw.draw(st.booleans()):
        # One index for each row.
        rows = tuple(slice(None) if place == axis % len(data) else slice(1) for place in range(len(data)))
        index = np.ascontiguousarray(np.broadcast_to(index[rows], index.shape))
    before = scatter("ScatterElements", [data, shape, shape], reduction, kind, index if fixed else None, axis=axis)
    feed = {"x": values(rng, data, kind), "update": values(rng, shape, kind)} | ({} if fixed else {"index": index})
    check(before, feed)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    data=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    leading=st.lists(st.integers(1, 4), min_size=0, max_size=2),
    reduction=st.sampled_from(REDUCTIONS),
    kind=st.sampled_from(sorted(KINDS)),
    draw=st.data(),
)
def test_scatter_nd(seed, data, leading, reduction, kind, draw):
    rng = np.random.default_rng(seed)
    width = draw.draw(st.integers(1, len(data)))
    index = np.stack([rng.integers(-size, size, leading) for size in data[:width]], -1)
    shape = [*leading, *data[width:]]
    before = scatter("ScatterND", [data, list(index.shape), shape], reduction, kind)
    check(before, {"x": values(rng, data, kind), "index": index, "update": values(rng, shape, kind)})


def check(before, feed):
    after = surgered(before)
    assert not ops(after) & {"ScatterElements", "ScatterND"}
    assert worst(before, after, [feed]) <= 1e-5


@pytest.mark.parametrize("row", [20, 44])
def test_a_scatter_that_only_writes_stays(row):
    assert_untouched(scatter("ScatterND", [[5, 3], [2, 1], [2, 3]], "none"), row)


@pytest.mark.parametrize(("reduction", "row"), [("add", 20), ("max", 44)])
@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([["n", 3], [2, 1], [2, 3]], "not fixed"),
        ([[2**16, 3], [2**12, 1], [2**12, 3]], "MiB"),
    ],
)
def test_what_is_left_says_why(reduction, row, shapes, words):
    before = scatter("ScatterND", shapes, reduction)
    after, report = operate(before, RTX)
    assert after is before
    (record,) = [record for record in report.records if record.row == row]
    assert (record.outcome, record.node) == (Outcome.REFUSED, "scatter")
    assert words in record.why
