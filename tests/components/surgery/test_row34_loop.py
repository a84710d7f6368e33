"""Row 34: what the table does not show: loops that stay, refusals, bodies in bodies, names that clash."""

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from surgery_graphs import BOOL, FLOAT, INT64, RTX, assert_untouched, make_model, ops, surgered, worst

from components.surgery.operate import operate
from components.surgery.surgery import Outcome

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row34 import body, growing, scanned


def running_sum(rounds, *, given=False, nodes=1):
    """``total += x`` in each round, a state that keeps its shape; `given`: the number of rounds is an input."""
    steps = [helper.make_node("Add", ["total", "x"], ["sum_0"])]
    steps += [helper.make_node("Abs", [f"sum_{i}"], [f"sum_{i + 1}"]) for i in range(nodes - 1)]
    inner = body(
        [*steps, helper.make_node("Identity", ["go_on"], ["still"])],
        {"round": (INT64, []), "go_on": (BOOL, []), "total": (FLOAT, [2, 3])},
        {"still": (BOOL, []), f"sum_{nodes - 1}": (FLOAT, [2, 3])},
    )
    node = helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=inner, name="loop")
    inputs = {"x": (FLOAT, [2, 3])} | ({"rounds": (INT64, [])} if given else {})
    constants = {"yes": np.array(True)} | ({} if given else {"rounds": np.array(rounds)})
    return make_model([node], inputs, {"y": (FLOAT, [2, 3])}, constants)


def feeds(shape=(2, 3)):
    return [{"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)} for seed in range(2)]


def test_a_long_loop_with_a_stable_state_stays():
    assert_untouched(running_sum(500), 34)


def test_a_short_one_is_unrolled():
    before = running_sum(7)
    after = surgered(before)
    assert "Loop" not in ops(after)
    assert worst(before, after, feeds()) == 0


def test_no_rounds_return_the_start():
    before = running_sum(0)
    assert worst(before, surgered(before), feeds()) == 0


def test_a_stable_loop_with_rounds_from_outside_stays():
    assert_untouched(running_sum(0, given=True), 34)


def test_growth_over_unknown_rounds_is_refused():
    model = growing()
    rounds = next(tensor for tensor in model.graph.initializer if tensor.name == "rounds")
    model.graph.initializer.remove(rounds)
    model.graph.input.append(helper.make_tensor_value_info("rounds", INT64, []))
    after, report = operate(model, RTX, only=[34])
    assert after is model
    (record,) = report.records
    assert (record.outcome, record.node) == (Outcome.REFUSED, "loop")
    assert "number of rounds depends on the data" in record.why


def test_a_condition_on_the_data_is_refused():
    model = growing()
    loop = model.graph.node[0]
    graph = loop.attribute[0].g
    graph.node.remove(graph.node[-1])
    zero = helper.make_node("Constant", [], ["nothing"], value_float=0.0)
    compare = [
        helper.make_node("ReduceSum", ["sum"], ["whole"], keepdims=0),
        helper.make_node("Greater", ["whole", "nothing"], ["still"]),
    ]
    graph.node.extend([zero, *compare])
    after, report = operate(model, RTX, only=[34])
    assert after is model
    assert "depends on the data" in report.records[0].why


@pytest.mark.parametrize("size", [1, 2, 6])
def test_scan_of_other_lengths(size):
    before = scanned()
    for value, axis in ((before.graph.input[0], 1), (before.graph.input[1], 0)):
        value.type.tensor_type.shape.dim[axis].dim_value = size
    before.graph.output[1].type.tensor_type.shape.dim[1].dim_value = size
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.standard_normal((3, size)).astype(np.float32),
        "z": rng.standard_normal((size, 3)).astype(np.float32),
    }
    assert worst(before, surgered(before), [feed]) <= 1e-6


def test_a_loop_in_a_loop_and_names_that_are_taken_outside():
    """The inner loop's constant is called as one of the outer graph's nodes calls its output."""
    inner = body(
        [
            helper.make_node("Constant", [], ["ten"], value_float=10.0),
            helper.make_node("Add", ["wide", "ten"], ["more"]),
            helper.make_node("Concat", ["more", "total"], ["wider"], axis=0),
            helper.make_node("Identity", ["inner_on"], ["inner_still"]),
        ],
        {"inner_round": (INT64, []), "inner_on": (BOOL, []), "wide": (FLOAT, ["a", 3])},
        {"inner_still": (BOOL, []), "wider": (FLOAT, ["b", 3])},
    )
    outer = body(
        [
            helper.make_node("Loop", ["two", "yes", "total"], ["grown"], body=inner, name="inner"),
            helper.make_node("Identity", ["go_on"], ["still"]),
        ],
        {"round": (INT64, []), "go_on": (BOOL, []), "total": (FLOAT, ["n", 3])},
        {"still": (BOOL, []), "grown": (FLOAT, ["m", 3])},
    )
    nodes = [
        helper.make_node("Neg", ["x"], ["unrelated"]),
        helper.make_node("Loop", ["two", "yes", "unrelated"], ["y"], body=outer, name="outer"),
    ]
    constants = {"two": np.array(2), "yes": np.array(True)}
    before = make_model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, None)}, constants)
    after, report = operate(before, RTX)
    assert "Loop" not in ops(after)
    assert all(record.outcome is Outcome.DONE for record in report.records)
    assert worst(before, after, feeds()) == 0


@pytest.mark.parametrize(("axis", "new_axis"), [(0, 1), (1, 1), (-1, 1), (2, 1), (0, 0), (1, 0), (-1, 0)])
def test_a_list_of_unknown_length_is_collected(axis, new_axis):
    """``rows.append(x * round)`` for a number of rounds from outside, and how it is joined."""
    nodes = [
        helper.make_node("Cast", ["round"], ["factor"], to=FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["row"]),
        helper.make_node("SequenceInsert", ["rows", "row"], ["more"]),
        helper.make_node("Identity", ["go_on"], ["still"]),
    ]
    inner = body(nodes, {"round": (INT64, []), "go_on": (BOOL, [])}, {"still": (BOOL, [])})
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [2, 3]))
    inner.input.append(helper.make_value_info("rows", kind))
    inner.output.append(helper.make_value_info("more", kind))
    outer = [
        helper.make_node("SequenceEmpty", [], ["none"], dtype=FLOAT),
        helper.make_node("Loop", ["rounds", "yes", "none"], ["all"], body=inner, name="loop"),
        helper.make_node("ConcatFromSequence", ["all"], ["y"], axis=axis, new_axis=new_axis),
    ]
    inputs = {"x": (FLOAT, [2, 3]), "rounds": (INT64, [])}
    before = make_model(outer, inputs, {"y": (FLOAT, None)}, {"yes": np.array(True)})
    after = surgered(before)
    assert not {name for name in ops(after) if "Sequence" in name}
    for rounds in (1, 2, 5):
        assert worst(before, after, [feed | {"rounds": np.array(rounds)} for feed in feeds()]) == 0
