"""Row 7: FLOAT64."""

import numpy as np
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, RTX, assert_untouched, make_model, ops, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

DOUBLE = TensorProto.DOUBLE


def scaled(factors, kind=DOUBLE):
    """Sqrt of the input times a float64 constant."""
    nodes = [helper.make_node("Sqrt", ["x"], ["root"], name="root"), helper.make_node("Mul", ["root", "c"], ["y"])]
    shape = [3, len(factors)]
    return make_model(nodes, {"x": (kind, shape)}, {"y": (kind, shape)}, {"c": np.array(factors)})


def test_the_caller_keeps_the_types_and_the_inside_is_fp32():
    before = scaled([1 / 3, 2.0])
    after = surgered(before)
    kinds = [value.type.tensor_type.elem_type for value in (*after.graph.input, *after.graph.output)]
    assert kinds == [DOUBLE, DOUBLE]
    assert [node.op_type for node in after.graph.node] == ["Cast", "Sqrt", "Mul", "Cast"]
    assert {tensor.data_type for tensor in after.graph.initializer} == {FLOAT}
    feeds = [{"x": np.random.default_rng(seed).random((3, 2))} for seed in range(3)]
    assert 0 < worst(before, after, feeds) < 1e-6


def test_type_attributes_change_too():
    nodes = [
        helper.make_node("EyeLike", ["x"], ["eye"], dtype=DOUBLE, name="eye"),
        helper.make_node("Cast", ["x"], ["wide"], to=DOUBLE),
        helper.make_node("MatMul", ["wide", "eye"], ["same"]),
        helper.make_node("Cast", ["same"], ["y"], to=FLOAT),
    ]
    before = make_model(nodes, {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 3])})
    after = surgered(before)
    assert not any(value.type.tensor_type.elem_type == DOUBLE for value in after.graph.value_info)
    assert "Cast" not in ops(after)
    assert worst(before, after, [{"x": np.random.default_rng(0).random((3, 3), np.float32)}]) == 0


def test_what_fp32_cannot_hold_is_counted_in_the_report():
    after, report = operate(scaled([2.0, 2.0**24 + 1]), RTX)
    assert after.graph.node
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert "1 constants whole numbers above 2^24" in report.records[0].what
    _, report = operate(scaled([2.0, 1e300]), RTX)
    (record,) = report.records
    assert record.outcome is Outcome.ROLLED_BACK  # here the answer itself does not fit
    assert "too large for FP32" in record.what


def test_what_a_branch_reads_keeps_its_type():
    body = helper.make_graph(
        [helper.make_node("Mul", ["half", "half"], ["square"])],
        "then",
        [],
        [helper.make_tensor_value_info("square", DOUBLE, [2])],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["half"], ["minus"])],
        "else",
        [],
        [helper.make_tensor_value_info("minus", DOUBLE, [2])],
    )
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=DOUBLE, name="widen"),
        helper.make_node("Div", ["wide", "two"], ["half"]),
        helper.make_node("If", ["which"], ["picked"], then_branch=body, else_branch=other),
        helper.make_node("Cast", ["picked"], ["y"], to=FLOAT),
    ]
    inputs = {"x": (FLOAT, [2]), "which": (TensorProto.BOOL, [])}
    before = make_model(nodes, inputs, {"y": (FLOAT, [2])}, {"two": np.array([2.0, 3.0])})
    after, report = operate(before, RTX, only=[7])
    assert report.done
    x = np.array([1.5, -7.0], np.float32)
    for which in (True, False):
        feed = {"x": x, "which": np.array(which)}
        np.testing.assert_allclose(Model(after)(feed)["y"], Model(before)(feed)["y"], rtol=1e-6)


def test_floats_are_untouched():
    nodes = [helper.make_node("Sqrt", ["x"], ["y"])]
    assert_untouched(make_model(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}), 7)
    cast = [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)]
    assert_untouched(make_model(cast, {"x": (DOUBLE, [3])}, {"y": (FLOAT, [3])}), 7)
