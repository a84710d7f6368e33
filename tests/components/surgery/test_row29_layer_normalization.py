"""Row 29: layer normalizations spelled out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, assert_untouched, make_model, ops, surgered, worst

from components.surgery.evaluate import Model

HALF = TensorProto.FLOAT16
SIZE = 8


def spelled(
    squares="Pow", divide="Div", axes=(-1,), opset=17, affine=(True, True), twice=False, kind=FLOAT, flipped=False
):
    """One of the spellings; `flipped` swaps the operands of what commutes."""
    dtype = np.float16 if kind == HALF else np.float32
    constants = {
        "two": dtype(2),
        "one": dtype(1),
        "half": dtype(-0.5),
        "epsilon": dtype(1e-5),
        "scale": np.linspace(0.5, 2, SIZE).astype(dtype),
        "bias": np.linspace(-1, 1, SIZE).astype(dtype),
        "axes": np.array(axes),
    }

    def mean(source, made):
        if opset >= 18:
            return helper.make_node("ReduceMean", [source, "axes"], [made])
        return helper.make_node("ReduceMean", [source], [made], axes=list(axes))

    def swap(*names):
        return list(names[::-1] if flipped else names)

    other = "centred"
    nodes = [mean("x", "mean"), helper.make_node("Sub", ["x", "mean"], ["centred"])]
    if twice:
        nodes.append(helper.make_node("Sub", ["x", "mean"], ["again"]))
        other = "again"
    nodes.append(helper.make_node(squares, [other, "two" if squares == "Pow" else other], ["squares"]))
    nodes += [mean("squares", "variance"), helper.make_node("Add", swap("variance", "epsilon"), ["padded"])]
    if divide == "Pow":
        nodes.append(helper.make_node("Pow", ["padded", "half"], ["inverse"], name="root"))
    else:
        nodes.append(helper.make_node("Sqrt", ["padded"], ["deviation"], name="root"))
    if divide == "Reciprocal":
        nodes.append(helper.make_node("Reciprocal", ["deviation"], ["inverse"]))
    if divide == "1/":
        nodes.append(helper.make_node("Div", ["one", "deviation"], ["inverse"]))
    last = "normal"
    if divide == "Div":
        nodes.append(helper.make_node("Div", ["centred", "deviation"], [last]))
    else:
        nodes.append(helper.make_node("Mul", swap("centred", "inverse"), [last]))
    for op, name, wanted in (("Mul", "scale", affine[0]), ("Add", "bias", affine[1])):
        if wanted:
            nodes.append(helper.make_node(op, swap(last, name), [f"{last}+"]))
            last += "+"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    shape = ["n", 5, SIZE]
    return make_model(nodes, {"x": (kind, shape)}, {"y": (kind, shape)}, constants, opset=opset)


@settings(max_examples=30, deadline=None)
@given(
    squares=st.sampled_from(["Pow", "Mul"]),
    divide=st.sampled_from(["Div", "Reciprocal", "1/", "Pow"]),
    axes=st.sampled_from([(-1,), (2,)]),
    opset=st.sampled_from([16, 17, 18]),
    affine=st.tuples(st.booleans(), st.booleans()),
    twice=st.booleans(),
    flipped=st.booleans(),
)
def test_every_spelling_becomes_one_node(**spelling):
    before = spelled(**spelling)
    after = surgered(before)
    assert ops(after) - {"Identity"} == {"LayerNormalization"}
    feeds = [{"x": np.random.default_rng(seed).normal(3, 2, (2, 5, SIZE)).astype(np.float32)} for seed in range(2)]
    assert worst(before, after, feeds) < 1e-5


def test_fp16_does_not_overflow_any_more():
    before = spelled(kind=HALF)
    after = surgered(before)
    assert ops(after) - {"Identity"} == {"Cast", "LayerNormalization"}
    x = np.random.default_rng(0).normal(0, 3, (1, 5, SIZE)).astype(np.float16)
    assert worst(before, after, [{"x": x}]) < 5e-3
    large = (x * 300).astype(np.float16)
    exact = Model(surgered(spelled()))({"x": large.astype(np.float32)})["y"]
    np.testing.assert_allclose(Model(after)({"x": large})["y"], exact, atol=5e-3)


@pytest.mark.parametrize("change", ["axes", "keepdims", "other tensor", "subtracted"])
def test_near_misses_are_untouched(change):
    model = spelled()
    nodes = {node.output[0]: node for node in model.graph.node}
    if change == "axes":
        nodes["variance"].attribute[0].ints[:] = [1]
    elif change == "keepdims":
        for name in ("mean", "variance"):
            nodes[name].attribute.append(helper.make_attribute("keepdims", 0))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = SIZE
        nodes["mean"].attribute[0].ints[:] = [0]
    elif change == "other tensor":
        nodes["centred"].input[0] = "bias"
    else:
        nodes["centred"].input[:] = ["mean", "x"]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert_untouched(model, 29)


def test_a_root_mean_square_is_no_layer_normalization():
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["mean"], axes=[-1]),
        helper.make_node("Add", ["mean", "epsilon"], ["padded"]),
        helper.make_node("Sqrt", ["padded"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["y"]),
    ]
    constants = {"two": np.float32(2), "epsilon": np.float32(1e-6)}
    assert_untouched(make_model(nodes, {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, [2, 4])}, constants), 29)


def test_a_scale_that_something_else_reads_stays_outside():
    model = spelled(affine=(True, False))
    model.graph.output.append(helper.make_tensor_value_info("normal", FLOAT, ["n", 5, SIZE]))
    after = surgered(model)
    assert ops(after) - {"Identity"} == {"LayerNormalization", "Mul"}
    x = np.random.default_rng(0).random((2, 5, SIZE)).astype(np.float32)
    assert worst(model, after, [{"x": x}]) < 1e-5
