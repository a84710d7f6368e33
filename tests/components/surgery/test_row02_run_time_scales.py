"""Row 2: scales at run time; and what matrices of a Resize must not be mistaken for."""

import numpy as np
import pytest
from onnx import helper
from surgery_graphs import FLOAT, assert_untouched, make_model, surgered, worst

from components.core.contracts.job import Runtime
from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

OPEN = ["a", "b", "c", "d"]


def doubled_from_shape(dtype_source):
    """Scales that depend on a shape, or on the values of a float input of that shape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sides"], to=FLOAT),
        helper.make_node("Div", [dtype_source, "sides"], ["scales"]),
        helper.make_node("Resize", ["x", "", "scales"], ["y"], name="resize", mode="nearest"),
    ]
    inputs = {"x": (FLOAT, ["n", 2, "h", "w"])}
    constants = {"target": np.array([2, 2, 10, 14], np.float32)}
    if dtype_source == "given":
        inputs["given"] = (FLOAT, [4])
        constants = {}
    return make_model(nodes, inputs, {"y": (FLOAT, OPEN)}, constants)


def test_sizes_and_numbers_are_those_of_onnx_runtime():
    before = doubled_from_shape("target")
    after = surgered(before)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.random((2, 2, h, w), np.float32)} for h in (1, 3, 7, 10, 13) for w in (5, 9, 14, 27)]
    assert worst(before, after, feeds) == 0


def test_sizes_that_float32_rounds_down_are_rounded_down_too():
    """14 / 23 * 23 is below 14 in float32: ONNX Runtime gives 13 columns, of a scale that is not 13 / 23."""
    before = doubled_from_shape("target")
    after = surgered(before)
    for width in (23, 46, 83):
        feed = {"x": np.random.default_rng(0).random((2, 2, 5, width), np.float32)}
        assert Model(after)(feed)["y"].shape == Model(before)(feed)["y"].shape == (2, 2, 10, 13)


def test_a_float_input_is_named():
    _, report = operate(doubled_from_shape("given"), Runtime.TENSORRT, only=[2])
    (record,) = report.records
    assert record.outcome is Outcome.REFUSED
    assert record.node == "resize"
    assert "'given'" in record.why
    assert "INT64 input" in record.what


@pytest.mark.parametrize("form", ["scales", "sizes"])
def test_constants_are_untouched(form):
    values = np.array([1, 1, 2, 2], np.float32) if form == "scales" else np.array([1, 1, 4, 4])
    names = ["x", "", "given"] if form == "scales" else ["x", "", "", "given"]
    node = helper.make_node("Resize", names, ["y"])
    assert_untouched(
        make_model([node], {"x": (FLOAT, [1, 1, 2, 2])}, {"y": (FLOAT, [1, 1, 4, 4])}, {"given": values}), 2
    )
