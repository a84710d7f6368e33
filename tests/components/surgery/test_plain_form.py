"""Local functions are written out and names made unique, before any surgery looks at the model."""

import numpy as np
import onnx
import pytest
from onnx import helper
from surgery_graphs import FLOAT, INT64, RTX, make_model, needs_rtx, ops, rtx, worst

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.plain_form import plain_form
from components.surgery.surgery import Outcome

FEED = {"x": np.array([[1, 0, 2], [0, -1, 3]], np.float32)}


def calling(opset=17):
    """``y = x + the number of its entries that are not 0``, the second part in a function."""
    inner = [
        helper.make_node("NonZero", ["a"], ["where"], name="entries"),
        helper.make_node("Shape", ["where"], ["shape"]),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
        helper.make_node("Gather", ["shape", "one"], ["count"]),
        helper.make_node("Cast", ["count"], ["b"], to=FLOAT),
    ]
    function = helper.make_function("mine", "Count", ["a"], ["b"], inner, [helper.make_opsetid("", opset)])
    nodes = [helper.make_node("Count", ["x"], ["n"], domain="mine"), helper.make_node("Add", ["x", "n"], ["y"])]
    model = make_model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, None)})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def twins():
    """Two nodes that an exporter gave the same name, and one in a branch, which is a graph of its own."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], name="n"),
        helper.make_node("Neg", ["x"], ["z"], name="n"),
        helper.make_node("NonZero", ["z"], ["b"], name="n"),
    ]
    return make_model(nodes, {"x": (FLOAT, [2, 3])}, {"a": (INT64, None), "b": (INT64, None)})


@pytest.mark.parametrize("opset", [16, 17, 18])
def test_what_is_in_a_function_is_operated_on(opset):
    before = calling(opset)
    after, report = operate(before, RTX)
    assert {record.outcome for record in report.records} == {Outcome.DONE}
    assert {41, 15} <= {record.row for record in report.done}
    assert not after.functions
    assert "NonZero" not in ops(after)
    assert worst(before, after, [FEED]) == 0
    again, second = operate(after, RTX)
    assert again is after
    assert second.records == []


@needs_rtx
def test_tensorrt_refuses_the_call_and_builds_the_result():
    assert rtx(calling()).stage == "reject"
    assert rtx(operate(calling(), RTX)[0]).stage == "ok"


def test_functions_that_nothing_calls_are_no_reason_to_touch_a_model():
    model = calling()
    del model.graph.node[0]
    model.graph.node[0].input[1] = "x"
    assert plain_form(model) == (model, [])
    assert operate(model, RTX)[0] is model


def test_names_become_unique_and_the_model_runs_again():
    before = twins()
    after, report = operate(before, Runtime.ONNXRUNTIME)
    assert [(record.row, record.node) for record in report.done] == [(41, "node names")]
    assert [node.name for node in after.graph.node] == ["n", "n_z", "n_b"]
    assert [node.name for node in before.graph.node] == ["n", "n", "n"]
    assert worst(after, after, [FEED]) == 0  # ONNX Runtime refuses it as it was
    again, _ = operate(after, Runtime.ONNXRUNTIME)
    assert again is after


def test_each_of_two_nodes_of_one_name_is_operated_on_and_compared():
    _, report = operate(twins(), RTX)
    assert [(one.node, one.max_error) for one in report.done if one.row == 15] == [("n", 0.0), ("n_b", 0.0)]


def test_the_row_can_be_left_out():
    model = twins()
    assert operate(model, Runtime.ONNXRUNTIME, skip={41})[0] is model


def test_a_damaged_function_is_left_to_others():
    model = calling()
    model.functions[0].node[0].op_type = "Count"  # calls itself
    model.functions[0].node[0].domain = "mine"
    assert isinstance(plain_form(model)[0], onnx.ModelProto)


def sparse(constant=False, linear=True):
    """``y = a @ w`` with a `w` of which two of nine values are stored."""
    places = np.array([1, 5]) if linear else np.array([[0, 1], [1, 2]])
    values = [onnx.numpy_helper.from_array(np.array([1.0, -2.0], np.float32), "w"), numpy_tensor(places, "places")]
    stored = helper.make_sparse_tensor(*values, [3, 3])
    nodes = [helper.make_node("Constant", [], ["w"], sparse_value=stored)] if constant else []
    model = make_model(
        [*nodes, helper.make_node("MatMul", ["a", "w"], ["y"])], {"a": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}
    )
    if not constant:
        model.graph.sparse_initializer.append(stored)
    return model


def numpy_tensor(values, name):
    return onnx.numpy_helper.from_array(values, name)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_sparse_weights_are_stored_in_full(constant, linear):
    before = sparse(constant, linear)
    after, report = operate(before, RTX)
    assert [record.row for record in report.done if record.node == "sparse values"] == [41]
    assert not after.graph.sparse_initializer
    feed = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert worst(before, after, [feed]) == 0
    again, second = operate(after, RTX)
    assert again is after
    assert second.records == []


@needs_rtx
def test_tensorrt_refuses_sparse_weights_and_builds_the_full_ones():
    assert rtx(sparse()).stage == "reject"
    assert rtx(operate(sparse(), RTX)[0]).stage == "ok"


@pytest.mark.parametrize("places", [[1, 9], [-1, 2], [0]])
def test_damaged_sparse_weights_are_left_for_others_to_judge(places):
    model = sparse()
    model.graph.sparse_initializer[0].indices.CopyFrom(numpy_tensor(np.array(places), "places"))
    written, changes = plain_form(model)
    assert written is model
    assert changes == []
