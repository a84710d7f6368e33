"""Row 40: what is pinned, and shapes that do not fit."""

import sys
from pathlib import Path

import pytest
from onnx import helper
from surgery_graphs import FLOAT, RTX, assert_untouched, make_model, needs_rtx, rtx

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgery import Options, Outcome

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row40 import head


def shape_of(value):
    return [side.dim_value or side.dim_param for side in value.type.tensor_type.shape.dim]


def pair():
    """Two inputs whose first dimension has one name."""
    inputs = {"a": (FLOAT, ["n", 3]), "b": (FLOAT, ["n", "m", 3])}
    return make_model([helper.make_node("Add", ["a", "b"], ["y"])], inputs, {"y": (FLOAT, ["n", "n", 3])})


def test_without_a_shape_nothing_is_done():
    assert_untouched(head(), 40)


@needs_rtx
def test_what_is_left_open_builds_with_a_profile():
    assert rtx(head()).stage == "ok"


def test_dimensions_of_one_name_are_pinned_together():
    after, report = operate(pair(), RTX, only=[40], options=Options(input_shapes={"a": [4, 3]}))
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert [shape_of(value) for value in after.graph.input] == [[4, 3], [4, "m", 3]]
    assert shape_of(after.graph.output[0])[1:] == [4, 3]


def test_a_shape_for_all_goes_to_inputs_of_its_rank():
    after, _ = operate(pair(), RTX, only=[40], options=Options(input_shapes={"": [4, 4, 3]}))
    assert [shape_of(value) for value in after.graph.input] == [[4, 3], [4, 4, 3]]


@pytest.mark.parametrize("shape", [[2, 4, 8, 8], [2, 3, 8], [0, 3, 8, 8]])
def test_a_shape_that_does_not_fit_is_refused(shape):
    before = head()
    after, report = operate(before, RTX, only=[40], options=Options(input_shapes={"x": shape}))
    assert after is before
    (record,) = report.records
    assert (record.node, record.outcome) == ("x", Outcome.REFUSED)
    assert str(shape) in record.why


def test_a_shape_for_all_passes_over_what_it_does_not_fit():
    before = head()
    after, report = operate(before, RTX, only=[40], options=Options(input_shapes={"": [1, 1, 8, 8]}))
    assert after is before
    assert report.records == []


def test_cpu_runtimes_keep_open_dimensions():
    before = head()
    after, report = operate(before, Runtime.ONNXRUNTIME, only=[40], options=Options(input_shapes={"": [1, 3, 8, 8]}))
    assert after is before
    assert report.records == []
