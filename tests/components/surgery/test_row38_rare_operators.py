"""Row 38: any numbers, blocks and grids; what is left, and why."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from surgery_graphs import BOOL, FLOAT, INT64, RTX, assert_untouched, make_model, ops, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.proof import difference
from components.surgery.surgery import Outcome

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row38 import affine_grid, single

KINDS = {
    TensorProto.INT8: np.int8,
    TensorProto.INT16: np.int16,
    TensorProto.INT32: np.int32,
    INT64: np.int64,
    TensorProto.UINT8: np.uint8,
    TensorProto.UINT32: np.uint32,
}


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"]),
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 1000),
    fixed=st.booleans(),
)
def test_any_bits(op, kind, seed, fixed):
    rng, limits = np.random.default_rng(seed), np.iinfo(KINDS[kind])
    a = rng.integers(limits.min, limits.max, (4, 5), KINDS[kind], endpoint=True)
    b = rng.integers(limits.min, limits.max, (5,), KINDS[kind], endpoint=True)
    a[0] = limits.min, limits.max, 0, 1, limits.max - 1
    binary = op != "BitwiseNot"
    constants = {"b": b} if fixed and binary else {}
    inputs = {"a": (kind, [4, 5])} | ({"b": (kind, [5])} if binary and not fixed else {})
    before = make_model(
        [helper.make_node(op, ["a", "b"] if binary else ["a"], ["y"])], inputs, {"y": (kind, [4, 5])}, constants, 18
    )
    after = surgered(before, only=[38])
    assert not any(name.startswith("Bitwise") for name in ops(after))
    assert worst(before, after, [{"a": a} | ({"b": b} if "b" in inputs else {})]) == 0


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.UINT32])
def test_shifts(direction, kind):
    node = helper.make_node("BitShift", ["a", "by"], ["y"], direction=direction)
    before = make_model([node], {"a": (kind, [3, 8]), "by": (kind, [8])}, {"y": (kind, [3, 8])}, opset=18)
    rng, top = np.random.default_rng(0), np.iinfo(KINDS[kind]).max
    feed = {"a": rng.integers(0, top, (3, 8), KINDS[kind], endpoint=True), "by": np.arange(8, dtype=KINDS[kind])}
    assert worst(before, surgered(before, only=[38]), [feed]) == 0


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 2),
    draw=st.data(),
)
def test_any_blocks(count, draw):
    block, strides, dilations, before_pads, behind_pads = (
        [draw.draw(st.integers(low, high)) for _ in range(count)]
        for low, high in ((1, 3), (1, 3), (1, 2), (0, 1), (0, 1))
    )
    extent = [d * (b - 1) + 1 for b, d in zip(block, dilations, strict=True)]
    image = [draw.draw(st.integers(size, size + 5)) for size in extent]
    pads = [*before_pads, *behind_pads]
    places = [
        (side + first + last - size) // stride + 1
        for side, first, last, size, stride in zip(image, before_pads, behind_pads, extent, strides, strict=True)
    ]
    shape = [2, 3 * int(np.prod(block)), int(np.prod(places))]
    constants = {"image": np.array(image), "block": np.array(block)}
    before = single(
        "Col2Im",
        {"x": (FLOAT, shape)},
        {"y": (FLOAT, None)},
        constants,
        strides=strides,
        dilations=dilations,
        pads=pads,
    )
    after = surgered(before, only=[38])
    assert "Col2Im" not in ops(after)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    # ONNX Runtime mixes up the channels of one-dimensional blocks; the standard's own reference does not.
    expected = ReferenceEvaluator(before).run(None, {"x": x})[0]
    assert difference(expected, Model(after)({"x": x})["y"]) <= 1e-6


@pytest.mark.parametrize("size", [[2, 1, 1, 4], [1, 1, 5, 5], [2, 3, 2, 3, 4]])
@pytest.mark.parametrize("corners", [0, 1])
def test_grids(size, corners):
    before = affine_grid(size, corners)
    shape = [side.dim_value for side in before.graph.input[0].type.tensor_type.shape.dim]
    theta = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert worst(before, surgered(before), [{"theta": theta}]) <= 1e-6


@pytest.mark.parametrize("shape", [[1, 1], [2, 2], [5, 1, 2, 2], [4, 3, 3], ["n", 2, 2]])
def test_determinants(shape):
    before = single("Det", {"x": (FLOAT, shape)}, {"y": (FLOAT, None)})
    sizes = [6 if side == "n" else side for side in shape]
    x = np.random.default_rng(0).standard_normal(sizes).astype(np.float32)
    assert worst(before, surgered(before), [{"x": x}]) <= 1e-5


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_compress_by_the_data_goes_on_as_a_boolean_index(axis):
    inputs = {"x": (FLOAT, [4, 3]), "c": (BOOL, [3])}
    attributes = {} if axis is None else {"axis": axis}
    before = single("Compress", inputs, {"y": (FLOAT, None)}, **attributes)
    after, report = operate(before, RTX, only=[38])
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert "Compress" not in ops(after)
    feed = {"x": np.arange(12, dtype=np.float32).reshape(4, 3), "c": np.array([True, False, True])}
    assert worst(before, after, [feed]) == 0


@pytest.mark.parametrize(
    ("op", "kind", "words"),
    [("Unique", FLOAT, "depends on the data"), ("Det", FLOAT, "product"), ("BitwiseNot", TensorProto.UINT64, "engine")],
)
def test_what_is_left_names_the_node_and_a_way_out(op, kind, words):
    before = single(op, {"x": (kind, [5, 5])}, {"y": (kind, None)})
    after, report = operate(before, RTX, only=[38])
    assert after is before
    (record,) = report.records
    assert (record.outcome, record.node) == (Outcome.REFUSED, "node")
    assert op in record.why
    assert words in record.what


def test_a_graph_without_them_stays():
    assert_untouched(make_model([helper.make_node("Neg", ["x"], ["y"])], {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}), 38)
