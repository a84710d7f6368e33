"""Cutting random graphs: every part can run when its turn comes, and no way needs fewer engines."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from partition_models import FLOAT, model_of

from components.core.errors import UserError
from components.surgery.partition.flow import Flow, flow_of, name_nodes
from components.surgery.partition.schedule import schedule


@st.composite
def graphs(draw) -> tuple[Flow, set[int]]:
    """A graph of up to 14 nodes, each a MatMul or an elementwise operator, some of them refused."""
    tensors, nodes = ["x"], []
    for number in range(draw(st.integers(1, 14))):
        sources = [draw(st.sampled_from(tensors)) for _ in range(2)]
        nodes.append(
            helper.make_node(draw(st.sampled_from(["MatMul", "Add"])), sources, [f"t{number}"], name=f"n{number}")
        )
        tensors.append(f"t{number}")
    read = {name for node in nodes for name in node.input}
    outputs = dict.fromkeys((name for name in tensors[1:] if name not in read), FLOAT)
    flow = flow_of(model_of(nodes, {"x": (FLOAT, [3, 3])}, outputs))
    return flow, {position for position in flow.order if draw(st.booleans())}


def engines_on_a_path(flow: Flow, engine: set[int]) -> int:
    """The most separate runs of engine nodes that any path crosses: no schedule has fewer engine parts."""
    most: dict[int, int] = {}
    for position in flow.order:
        before = [most[one] + (position in engine and one not in engine) for one in flow.needs[position]]
        most[position] = max([int(position in engine), *before])
    return max(most.values(), default=0)


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_parts_run_in_order_and_engines_are_as_few_as_possible(drawn):
    flow, refused = drawn
    stretches, small = schedule(flow, refused)
    assert sorted(position for stretch in stretches for position in stretch.nodes) == sorted(flow.order)
    done: set[int] = set()
    for stretch in stretches:
        for position in stretch.nodes:
            assert done.issuperset(flow.needs[position])
            done.add(position)
    engine = {position for stretch in stretches if stretch.engine for position in stretch.nodes}
    assert not engine & (refused | small)
    assert engine | small | refused == set(flow.order)
    operators = [node.op_type for node in flow.model.graph.node]
    for stretch in stretches:
        assert stretch.nodes
        assert not stretch.engine or any(operators[position] == "MatMul" for position in stretch.nodes)
    assert sum(stretch.engine for stretch in stretches) == engines_on_a_path(flow, engine)
    assert all(a.engine != b.engine for a, b in pairwise(stretches) if a.engine)


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_a_part_without_work_is_in_no_engine_even_beside_one_with_work(drawn):
    flow, refused = drawn
    stretches, _ = schedule(flow, refused)
    operators = [node.op_type for node in flow.model.graph.node]
    for stretch in (one for one in stretches if one.engine):
        reached = {position for position in stretch.nodes if operators[position] == "MatMul"}
        while True:
            more = {p for p in stretch.nodes if set(flow.needs[p]) & reached} | {
                one for p in reached for one in flow.needs[p] if one in stretch.nodes
            }
            if more <= reached:
                break
            reached |= more
        assert reached == set(stretch.nodes)


def test_a_file_out_of_order_is_put_in_order_and_a_cycle_is_named():
    late = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    assert flow_of(model_of(late, {"x": (FLOAT, [1])}, {"y": FLOAT})).order == (1, 0)
    ring = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    with pytest.raises(UserError, match="cycle"):
        flow_of(model_of(ring, {"x": (FLOAT, [1])}, {"b": FLOAT}))
    with pytest.raises(UserError, match="'gone', which nothing in it makes"):
        flow_of(model_of([helper.make_node("Relu", ["gone"], ["y"])], {"x": (FLOAT, [1])}, {"y": FLOAT}))


def test_nodes_that_no_output_needs_are_left_out():
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["x"], ["unused"])]
    assert flow_of(model_of(nodes, {"x": (FLOAT, [1])}, {"y": FLOAT})).order == (0,)


def test_every_node_gets_a_name_of_its_own():
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["b"], name="same")], "body", [], [])
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="same"),
        helper.make_node("Relu", ["x"], ["c"]),
        helper.make_node("If", ["x"], ["d"], then_branch=body, else_branch=body),
        helper.make_node("Relu", ["x"], ["e"], name="same"),
    ]
    model = model_of(nodes, {"x": (FLOAT, [1])}, {"a": FLOAT})
    owners = name_nodes(model)
    assert owners == {"same": 0, "Relu_1": 1, "If_2": 2, "same_2": 2, "same_3": 2, "same_4": 3}
    assert [node.name for node in model.graph.node] == ["same", "Relu_1", "If_2", "same_4"]
