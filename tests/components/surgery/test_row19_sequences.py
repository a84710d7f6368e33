"""Row 19: what the table does not show: refusals and many random edits."""

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, INT64, RTX, assert_untouched, make_model, ops, surgered, worst

from components.surgery.operate import operate
from components.surgery.surgery import Outcome


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_edits_of_a_list(data):
    nodes, constants, length = [], {}, data.draw(st.integers(1, 4))
    nodes.append(helper.make_node("SplitToSequence", ["x", "size"], ["s0"], axis=1))
    constants["size"], columns = np.array(2), [2] * (length - 1) + [data.draw(st.integers(1, 2))]
    for step in range(data.draw(st.integers(0, 4))):
        inserts = len(columns) < 2 or data.draw(st.booleans())
        place = data.draw(st.integers(-len(columns), len(columns) if inserts else len(columns) - 1))
        constants[f"p{step}"] = np.array(place)
        given_inputs = [f"s{step}", *(["z"] if inserts else []), f"p{step}"]
        operator = "SequenceInsert" if inserts else "SequenceErase"
        nodes.append(helper.make_node(operator, given_inputs, [f"s{step + 1}"]))
        if inserts:
            columns.insert(place, 3)
        else:
            del columns[place]
    last = f"s{len(nodes) - 1}"
    constants["at"] = np.array(data.draw(st.integers(-len(columns), len(columns) - 1)))
    nodes += [
        helper.make_node("SequenceAt", [last, "at"], ["one"]),
        helper.make_node("ConcatFromSequence", [last], ["y"], axis=1),
        helper.make_node("SequenceLength", [last], ["n"]),
    ]
    width = 2 * (length - 1) + 2 if length else 2
    inputs = {"x": (FLOAT, [2, width]), "z": (FLOAT, [2, 3])}
    before = make_model(nodes, inputs, {"one": (FLOAT, None), "y": (FLOAT, None), "n": (INT64, [])}, constants)
    after = surgered(before)
    assert not any("Sequence" in op for op in ops(after))
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal(shape).astype(np.float32) for name, (_, shape) in inputs.items()}
    assert worst(before, after, [feed]) == 0


def refused(nodes, inputs, outputs, constants=None):
    model = make_model(nodes, inputs, outputs, constants)
    after, report = operate(model, RTX, only=[19])
    assert after is model
    assert {record.outcome for record in report.records} == {Outcome.REFUSED}
    return report.records[0]


def test_parts_of_sizes_from_the_data():
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=0),
        helper.make_node("SequenceAt", ["parts", "zero"], ["y"], name="read"),
    ]
    inputs = {"x": (FLOAT, [4, 3]), "sizes": (INT64, [2])}
    record = refused(nodes, inputs, {"y": (FLOAT, None)}, {"zero": np.array(0)})
    assert record.node == "read"
    assert "sizes" in record.why


def test_an_index_from_the_data_into_different_shapes():
    nodes = [
        helper.make_node("SequenceConstruct", ["a", "b"], ["all"]),
        helper.make_node("SequenceAt", ["all", "index"], ["y"]),
    ]
    inputs = {"a": (FLOAT, [4, 3]), "b": (FLOAT, [2, 3]), "index": (INT64, [])}
    assert "one fixed shape" in refused(nodes, inputs, {"y": (FLOAT, None)}).why


def test_a_sequence_that_leaves_the_graph():
    node = helper.make_node("SequenceConstruct", ["a", "b"], ["all"], name="list")
    model = make_model([node], {"a": (FLOAT, [4, 3]), "b": (FLOAT, [2, 3])}, {})
    element = helper.make_tensor_type_proto(FLOAT, [None, 3])
    model.graph.output.append(onnx.helper.make_value_info("all", helper.make_sequence_type_proto(element)))
    after, report = operate(model, RTX, only=[19])
    assert after is model
    (record,) = report.records
    assert (record.node, record.outcome) == ("list", Outcome.REFUSED)
    assert "output of the graph" in record.why


def test_a_graph_of_tensors_stays():
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=0), helper.make_node("Add", ["a", "b"], ["y"])]
    assert_untouched(make_model(nodes, {"x": (FLOAT, [4, 3])}, {"y": (FLOAT, [2, 3])}), 19)
