"""Row 36: operands of different precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, RTX, assert_untouched, make_model, needs_rtx, rtx, surgered

from components.surgery.evaluate import Model
from components.surgery.operate import operate

HALF, DOUBLE = TensorProto.FLOAT16, TensorProto.DOUBLE
DTYPES = {HALF: np.float16, FLOAT: np.float32}
OPERATORS = ["Add", "Mul", "Sub", "Max", "Concat"]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(OPERATORS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6),
    st.lists(st.sampled_from([HALF, FLOAT]), min_size=2, max_size=4),
    st.sampled_from([HALF, FLOAT]),
)
def test_any_mixture_of_types_loads_and_means_what_numpy_means(steps, kinds, declared):
    names = [f"x{number}" for number in range(len(kinds))]
    inputs = {name: (kind, [1, 2]) for name, kind in zip(names, kinds, strict=True)}
    rng = np.random.default_rng(0)
    feed = {name: rng.random((1, 2)).astype(DTYPES[kind]) for name, (kind, _) in inputs.items()}
    values = dict(feed)
    nodes = []
    for number, (op, left, right) in enumerate(steps):
        a, b = (names[place % len(names)] for place in (left, right))
        if op != "Concat" and values[a].shape != values[b].shape:
            continue
        made = f"t{number}"
        nodes.append(helper.make_node(op, [a, b], [made], **({"axis": 1} if op == "Concat" else {})))
        values[made] = NUMPY[op](values[a], values[b])
        names.append(made)
    nodes.append(helper.make_node("Identity", [names[-1]], ["y"]))
    before = make_model(nodes, inputs, {"y": (declared, [1, values[names[-1]].shape[1]])})
    after, _ = operate(before, RTX, only=[36])
    found = Model(after)({name: feed[name] for name in (value.name for value in after.graph.input)})["y"]
    assert found.dtype == DTYPES[declared]
    np.testing.assert_allclose(found, values[names[-1]].astype(DTYPES[declared]), rtol=2e-3, atol=1e-4)
    again, report = operate(after, RTX, only=[36])
    assert again is after
    assert report.records == []


NUMPY = {
    "Add": np.add,
    "Mul": np.multiply,
    "Sub": np.subtract,
    "Max": np.maximum,
    "Concat": lambda a, b: np.concatenate([a, b], 1),
}


def test_a_constant_that_fp16_cannot_hold_keeps_fp32():
    nodes = [helper.make_node("Min", ["x", "large"], ["y"], name="cut")]
    before = make_model(nodes, {"x": (HALF, [2])}, {"y": (HALF, [2])}, {"large": np.float32(1e6)})
    after = surgered(before)
    x = np.array([60000, -3], np.float16)
    np.testing.assert_array_equal(Model(after)({"x": x})["y"], x)


@needs_rtx
def test_a_shared_tensor_is_cast_once():
    nodes = [
        helper.make_node("Relu", ["half"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("Sub", ["c", "a"], ["y"]),
    ]
    before = make_model(nodes, {"half": (HALF, [3]), "x": (FLOAT, [3])}, {"y": (FLOAT, [3])})
    assert rtx(before).stage == "reject"
    after = surgered(before)
    assert rtx(after)[::2] == ("ok", 0)
    assert [node.op_type for node in after.graph.node].count("Cast") == 1


@pytest.mark.parametrize(
    ("op", "kind", "constants"),
    [
        ("Pow", HALF, {"c": np.float32(2)}),  # two type variables
        ("BatchNormalization", HALF, {name: np.ones(3, np.float32) for name in "sbmv"}),
        ("Resize", HALF, {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}),
    ],
)
def test_types_that_may_differ_are_untouched(op, kind, constants):
    node = helper.make_node(op, ["x", *constants], ["y"])
    assert_untouched(make_model([node], {"x": (kind, [1, 3, 2, 2])}, {"y": (kind, None)}, constants), 36)


def test_casts_between_islands_are_untouched():
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=FLOAT),
        helper.make_node("Exp", ["wide"], ["e"]),
        helper.make_node("Cast", ["e"], ["narrow"], to=HALF),
        helper.make_node("Add", ["narrow", "x"], ["y"]),
    ]
    assert_untouched(make_model(nodes, {"x": (HALF, [3])}, {"y": (HALF, [3])}), 36)
