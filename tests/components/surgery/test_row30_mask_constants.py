"""Row 30: mask constants."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from surgery_graphs import BOOL, FLOAT, INT64, RTX, assert_untouched, make_model, surgered, worst

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

SHAPE = [2, 9]
MASKS = [-1e9, -3.4028235e38, -np.inf]


def selected(value, end="Softmax", kind=FLOAT):
    dtype = np.float16 if kind != FLOAT else np.float32
    nodes = [
        helper.make_node("Where", ["hide", "value", "x"], ["scores"], name="mask"),
        helper.make_node(end, ["scores"], ["y"]),
    ]
    with np.errstate(over="ignore"):
        constants = {"value": dtype(value)}
    return make_model(nodes, {"x": (kind, SHAPE), "hide": (BOOL, SHAPE)}, {"y": (kind, SHAPE)}, constants)


def added(value, twice=False):
    """x + (1 - mask) * value, with a second mask or without."""
    nodes = [
        helper.make_node("Cast", ["seen"], ["floats"], to=FLOAT),
        helper.make_node("Sub", ["one", "floats"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "value"], ["bias"], name="mask"),
        helper.make_node("Add", ["x", "bias"], ["sum"]),
    ]
    nodes += [helper.make_node("Add", ["sum", "bias"], ["again"])] if twice else []
    nodes += [helper.make_node("Softmax", ["again" if twice else "sum"], ["y"])]
    constants = {"one": np.float32(1), "value": np.float32(value)}
    return make_model(nodes, {"x": (FLOAT, SHAPE), "seen": (INT64, SHAPE)}, {"y": (FLOAT, SHAPE)}, constants)


def smallest(model):
    return min(float(numpy_helper.to_array(tensor).min()) for tensor in model.graph.initializer)


def feeds(name, kind):
    rng = np.random.default_rng(0)
    for _ in range(3):
        mask = rng.random(SHAPE) < 0.6
        mask[:, 0] = name == "seen"
        yield {"x": rng.standard_normal(SHAPE).astype(np.float32), name: mask.astype(kind)}


@pytest.mark.parametrize("value", MASKS)
def test_a_selected_mask_becomes_the_lowest_of_fp16(value):
    before = selected(value)
    after = surgered(before)
    assert smallest(after) == -65504
    assert worst(before, after, list(feeds("hide", bool))) == 0


@pytest.mark.parametrize("value", MASKS[:2])
@pytest.mark.parametrize("twice", [False, True])
def test_an_added_mask_leaves_room_for_the_sum(value, twice):
    if twice and value < -1e38:
        pytest.skip("the sum of two is -inf already before")
    before = added(value, twice)
    after = surgered(before, seeds=(1, 2))  # in which some position of each row is seen
    assert smallest(after) == -32752
    assert worst(before, after, list(feeds("seen", np.int64))) == 0


def test_it_is_taken_back_where_inputs_mask_whole_rows():
    hidden = {"x": np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32), "seen": np.zeros(SHAPE, int)}
    after, report = operate(added(-1e9), RTX, seeds=(hidden,))
    assert [record.outcome for record in report.records] == [Outcome.ROLLED_BACK]
    assert smallest(after) == -1e9


@pytest.mark.parametrize("value", [-1e9, np.finfo(np.float32).min, -np.inf])
def test_the_mask_of_a_causal_text_model_is_cut(value):
    """Where padding and the future are masked together, as CLIP and Llama do: the first word always sees itself."""
    nodes = [
        helper.make_node("Cast", ["seen"], ["words"], to=BOOL),
        helper.make_node("Unsqueeze", ["words", "axis"], ["row"]),
        helper.make_node("And", ["row", "past"], ["both"]),
        helper.make_node("Where", ["both", "zero", "value"], ["bias"], name="mask"),
        helper.make_node("Add", ["x", "bias"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["y"]),
    ]
    constants = {
        "axis": np.array([1]),
        "past": np.tri(9, dtype=bool),
        "zero": np.float32(0),
        "value": np.float32(value),
    }
    inputs = {"x": (FLOAT, [2, 9, 9]), "seen": (INT64, [2, 9])}
    _, report = operate(make_model(nodes, inputs, {"y": (FLOAT, [2, 9, 9])}, constants), RTX)
    assert [(record.outcome, record.max_error) for record in report.records] == [(Outcome.DONE, 0.0)]


def test_a_fully_masked_row_in_fp16_is_a_number_again():
    before = selected(-1e9, kind=TensorProto.FLOAT16)
    after = surgered(before)
    feed = {"x": np.zeros(SHAPE, np.float16), "hide": np.ones(SHAPE, bool)}
    assert np.isnan(Model(before)(feed)["y"]).all()
    np.testing.assert_allclose(Model(after)(feed)["y"], 1 / 9, rtol=1e-3)


def test_the_value_of_a_constant_of_shape_is_cut_too():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["full"], value=numpy_helper.from_array(np.array([-np.inf], np.float32))
        ),
        helper.make_node("Trilu", ["full", "one"], ["mask"]),
        helper.make_node("Add", ["x", "mask"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["y"]),
    ]
    shape = ["n", "n"]
    before = make_model(nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, shape)}, {"one": np.array(1)})
    after, report = operate(before, RTX, only=[30])
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    x = np.random.default_rng(0).standard_normal((5, 5)).astype(np.float32)
    assert worst(before, after, [{"x": x}]) == 0


def test_what_does_not_only_lead_into_a_softmax_is_untouched():
    assert_untouched(selected(-1e9, end="Relu"), 30)
    assert_untouched(selected(-1e9, end="LogSoftmax"), 30)
    assert_untouched(selected(-10000.0), 30)
    both = selected(-1e9)
    both.graph.output.append(helper.make_tensor_value_info("scores", FLOAT, SHAPE))
    assert_untouched(both, 30)
