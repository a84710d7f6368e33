"""Rows 32 and 33: windows of any kernel, stride, padding and dilation; ties; what cannot be known."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, INT64, assert_untouched, make_model, ops, worst

from components.core.contracts.job import Runtime
from components.surgery.evaluate import EvaluationError, Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome


def pool(shape, *, indices=False, opset=17, **attributes):
    node = helper.make_node("MaxPool", ["x"], ["y", "i"][: 1 + indices], name="pool", **attributes)
    axes = ["abcde"[i] for i in range(len(shape))]
    outputs = {"y": (FLOAT, axes)} | ({"i": (INT64, axes)} if indices else {})
    return make_model([node], {"x": (FLOAT, shape)}, outputs, None, opset)


def unpool(names, *, given_indices=False, **attributes):
    nodes = [helper.make_node("MaxUnpool", names, ["z"], name="unpool", **attributes)]
    inputs = {"x": (FLOAT, [1, 2, 3, 4])}
    if given_indices:
        inputs["i"] = (INT64, [1, 2, 3, 4])
    return make_model(nodes, inputs, {"z": (FLOAT, list("abcd"))})


@st.composite
def windows(draw):
    """Attributes and sizes of one or two spatial axes, closed or open."""
    rank = draw(st.integers(1, 2))
    axis = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
    kernels, strides, dilations = zip(*(draw(axis) for _ in range(rank)), strict=True)
    pads = [draw(st.integers(0, kernel - 1)) for kernel in kernels * 2]
    sizes = [draw(st.integers((k - 1) * d + 1, 17)) for k, d in zip(kernels, dilations, strict=True)]
    attributes = {
        "kernel_shape": kernels,
        "strides": strides,
        "dilations": dilations,
        "pads": pads,
        "ceil_mode": draw(st.integers(0, 1)),
    }
    return attributes, sizes, draw(st.booleans())


REACHING_FAR = {
    "kernel_shape": (1, 4),
    "strides": (3, 2),
    "dilations": (1, 2),
    "pads": [0, 0, 0, 3],
    "ceil_mode": 1,
}
"""The last window needs more padding than a pooling may have by itself."""


def values(rng, shape):
    """Few different numbers, so that there are ties."""
    return {"x": rng.integers(-3, 3, shape).astype(np.float32)}


@settings(max_examples=40, deadline=None)
@example((REACHING_FAR, [5, 7], False), 0, True)
@given(windows(), st.integers(0, 99), st.booleans())
def test_values_and_indices_are_those_of_onnx_runtime(case, seed, with_indices):
    attributes, sizes, is_open = case
    shape = [2, 3, *(f"d{i}" if is_open and not with_indices else size for i, size in enumerate(sizes))]
    before = pool(shape, indices=with_indices, **attributes)
    feed = values(np.random.default_rng(seed), (2, 3, *sizes))
    try:
        Model(before)(feed)
    except EvaluationError:
        assume(False)
    after, report = operate(before, Runtime.TENSORRT_RTX, only=[32, 33])
    assert all(record.outcome is not Outcome.ROLLED_BACK for record in report.records)
    if report.done:
        assert all(len(node.output) == 1 for node in after.graph.node)
    assert worst(before, after, [feed]) == 0


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"strides": [2, 2], "ceil_mode": 1}, "not fixed"),
        ({"auto_pad": "SAME_UPPER"}, "differ"),
    ],
)
def test_padding_that_cannot_be_known_is_named(attributes, word):
    model = pool([1, 2, "h", "w"], kernel_shape=[3, 3], dilations=[2, 2], **attributes)
    after, report = operate(model, Runtime.TENSORRT_RTX)
    (record,) = report.records
    assert (record.row, record.node, record.outcome) == (32, "pool", Outcome.REFUSED)
    assert word in record.why
    assert ops(after) == {"MaxPool"}


def test_plain_pooling_is_untouched():
    for row in (32, 33):
        assert_untouched(pool([1, 2, 9, 9], kernel_shape=[3, 3], dilations=[1, 1], strides=[2, 2]), row)


def test_indices_from_elsewhere_are_scattered():
    before = unpool(["x", "i"], given_indices=True, kernel_shape=[2, 2], strides=[2, 2])
    after, _ = operate(before, Runtime.TENSORRT_RTX, only=[33])
    assert "ScatterND" in ops(after)
    rng = np.random.default_rng(0)
    places = np.stack([rng.permutation(48)[:12] + 48 * plane for plane in range(2)]).reshape(1, 2, 3, 4)
    feed = {"x": rng.standard_normal((1, 2, 3, 4)).astype(np.float32), "i": places}
    assert worst(before, after, [feed]) == 0


def test_indices_of_an_open_size_are_named():
    before = pool([1, 2, "h", 8], indices=True, kernel_shape=[2, 2])
    _, report = operate(before, Runtime.TENSORRT_RTX, only=[33])
    (record,) = report.records
    assert record.outcome is Outcome.REFUSED
    assert "target.input_shape" in record.what
