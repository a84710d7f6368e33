"""Rows 8 and 9: UINT8 as input and inside the graph."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, RTX, assert_untouched, make_model, ops, surgered, worst

from components.surgery.operate import operate

UINT8, INT64 = TensorProto.UINT8, TensorProto.INT64
SHAPE = (2, 3, 4)


def chain(kind, moves, end):
    """x -> uint8 (a Cast unless x is) -> moves -> `end`."""
    nodes, last, constants = [], "x", {"c": np.array(3, np.uint8)}
    if kind != UINT8:
        nodes.append(helper.make_node("Cast", ["x"], ["cut"], to=UINT8))
        last = "cut"
    for number, move in enumerate(moves):
        made = f"t{number}"
        nodes.append(MOVES[move](last, made, constants))
        last = made
    if end == "Equal":
        nodes.append(helper.make_node("Equal", [last, "c"], ["found"]))
        nodes.append(helper.make_node("Cast", ["found"], ["y"], to=FLOAT))
        kind_out = FLOAT
    else:
        nodes.append(helper.make_node("Cast", [last], ["y"], to=end))
        kind_out = end
    return make_model(nodes, {"x": (kind, ["n", *SHAPE[1:]])}, {"y": (kind_out, ["a", "b", "c"])}, constants)


def _slice(last, made, constants):
    constants |= {"from": np.array([1]), "to": np.array([9]), "axis": np.array([2])}
    return helper.make_node("Slice", [last, "from", "to", "axis"], [made])


MOVES = {
    "Transpose": lambda last, made, _: helper.make_node("Transpose", [last], [made]),
    "Concat": lambda last, made, _: helper.make_node("Concat", [last, last], [made], axis=1),
    "Max": lambda last, made, _: helper.make_node("Max", [last, "c"], [made]),
    "Slice": _slice,
    "Identity": lambda last, made, _: helper.make_node("Identity", [last], [made]),
}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([FLOAT, INT64, UINT8, TensorProto.INT32]),
    st.lists(st.sampled_from(sorted(MOVES)), max_size=4),
    st.sampled_from([FLOAT, TensorProto.FLOAT16, INT64, TensorProto.BOOL, "Equal"]),
    st.integers(0, 2**31),
)
def test_any_chain_of_moves_keeps_its_numbers(kind, moves, end, seed):
    before = chain(kind, moves, end)
    after = surgered(before)
    inner = [value.type.tensor_type.elem_type for value in after.graph.value_info]
    assert UINT8 not in inner
    rng = np.random.default_rng(seed)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    low, high = (0, 256) if kind in (UINT8, FLOAT) else (-1000, 1000)
    feeds = [{"x": rng.uniform(low, high, SHAPE).astype(dtype)} for _ in range(3)]
    assert worst(before, after, feeds) == 0


def test_a_mask_that_moves_to_floats_is_float_all_along():
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["mask"], to=UINT8),
        helper.make_node("Transpose", ["mask"], ["turned"]),
        helper.make_node("Cast", ["turned"], ["y"], to=FLOAT),
    ]
    before = make_model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [3, 2])}, {"zero": np.float32(0)})
    after = surgered(before)
    assert [node.op_type for node in after.graph.node] == ["Greater", "Cast", "Transpose"]


def test_a_float_loses_its_fraction_on_the_way():
    before = chain(FLOAT, [], FLOAT)
    after = surgered(before)
    x = np.array([0.4, 1.9, 255.5], np.float32).reshape(1, 1, 3).repeat(3, 1)
    x = np.concatenate([x, x[..., :1]], -1)
    assert worst(before, after, [{"x": x}]) == 0


def test_the_caller_still_feeds_uint8():
    after = surgered(chain(UINT8, ["Transpose"], FLOAT))
    assert [value.type.tensor_type.elem_type for value in after.graph.input] == [UINT8]
    assert [node.op_type for node in after.graph.node] == ["Cast", "Transpose"]


def test_a_quantizer_is_left_to_its_own_rows():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("Cast", ["q"], ["y"], to=FLOAT),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.uint8(0)}
    model = make_model(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}, constants)
    after, report = operate(model, RTX, only=[8, 9])
    assert after is model
    assert report.records == []


def test_uint8_at_the_border_is_untouched():
    nodes = [helper.make_node("Cast", ["x"], ["z"], to=FLOAT), helper.make_node("Cast", ["z"], ["y"], to=UINT8)]
    model = make_model(nodes, {"x": (UINT8, [3])}, {"y": (UINT8, [3])})
    for row in (8, 9):
        assert_untouched(model, row)
    assert ops(model) == {"Cast"}
