"""Row 31: pads that are always the same, and those that are not."""

import numpy as np
from onnx import helper
from surgery_graphs import FLOAT, INT64, assert_untouched, make_model

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgery import Outcome


def padded(start, source="x", **inputs):
    """Pads = 12 - sides, for the sides from `start` of the shape."""
    nodes = [
        helper.make_node("Shape", [source], ["sides"], start=start),
        helper.make_node("Sub", ["target", "sides"], ["after"]),
        helper.make_node("Concat", ["nothing", "after"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["y"], name="pad", mode="reflect"),
    ]
    count = 4 - start
    constants = {"target": np.full(count, 12), "nothing": np.zeros(8 - count, np.int64)}
    return make_model(nodes, inputs, {"y": (FLOAT, list("abcd"))}, constants)


def pads_of(model):
    (node,) = [node for node in model.graph.node if node.op_type == "Pad"]
    return node.input[1]


def test_pads_that_depend_on_an_open_side_are_left():
    before = padded(2, x=(FLOAT, ["n", 2, 9, "w"]))
    after, report = operate(before, Runtime.TENSORRT_RTX, only=[31])
    assert after is before
    assert report.records == []


def test_pads_that_depend_on_another_shape_are_left():
    before = padded(2, "other", x=(FLOAT, [1, 2, 9, 9]), other=(FLOAT, [1, 2, "h", "w"]))
    assert operate(before, Runtime.TENSORRT_RTX, only=[31])[0] is before


def test_pads_of_an_integer_input_are_left():
    node = helper.make_node("Pad", ["x", "pads"], ["y"], name="pad")
    inputs = {"x": (FLOAT, [1, 2, 3, 4]), "pads": (INT64, [8])}
    assert_untouched(make_model([node], inputs, {"y": (FLOAT, list("abcd"))}), 31)


def test_pads_of_floats_are_named():
    nodes = [
        helper.make_node("Cast", ["margins"], ["pads"], to=INT64),
        helper.make_node("Pad", ["x", "pads"], ["y"], name="pad"),
    ]
    inputs = {"x": (FLOAT, [1, 2, 3, 4]), "margins": (FLOAT, [8])}
    _, report = operate(make_model(nodes, inputs, {"y": (FLOAT, list("abcd"))}), Runtime.TENSORRT, only=[31])
    (record,) = report.records
    assert (record.node, record.outcome) == ("pad", Outcome.REFUSED)
    assert "'margins'" in record.why
