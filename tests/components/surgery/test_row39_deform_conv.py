"""Row 39: DeformConv of any geometry; row 45: MaxRoiPool of any boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, assert_untouched, make_model, ops, worst

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgery import Outcome


def deform_conv(sides, kernel, strides, dilations, pads, groups, offset_groups, *, mask, bias, seed=0):
    """The model and inputs for it; offsets reach out of the image."""
    rng = np.random.default_rng(seed)
    outs = [
        (side + pads[axis] + pads[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        for axis, side in enumerate(sides)
    ]
    places = kernel[0] * kernel[1]
    given_inputs = {
        "x": rng.standard_normal((2, 4, *sides)).astype(np.float32),
        "offset": (3 * rng.standard_normal((2, offset_groups * places * 2, *outs))).astype(np.float32),
    }
    names = ["x", "w", "offset", "b" if bias else "", "mask" if mask else ""]
    if mask:
        given_inputs["mask"] = rng.random((2, offset_groups * places, *outs)).astype(np.float32)
    constants = {"w": rng.standard_normal((6, 4 // groups, *kernel)).astype(np.float32)}
    if bias:
        constants["b"] = rng.standard_normal(6).astype(np.float32)
    while not names[-1]:
        names.pop()
    node = helper.make_node(
        "DeformConv",
        names,
        ["y"],
        name="deform",
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=groups,
        offset_group=offset_groups,
    )
    inputs = {name: (FLOAT, list(value.shape)) for name, value in given_inputs.items()}
    return make_model([node], inputs, {"y": (FLOAT, list("abcd"))}, constants, opset=19), given_inputs


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.booleans(),
)
def test_any_geometry_keeps_its_numbers(sides, kernel, strides, dilations, groups, offset_groups, mask, bias):
    pads = [2, 3, 2, 4]
    before, feed = deform_conv(sides, kernel, strides, dilations, pads, groups, offset_groups, mask=mask, bias=bias)
    after, report = operate(before, Runtime.TENSORRT_RTX, only=[39])
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert "DeformConv" not in ops(after)
    assert worst(before, after, [feed]) <= 1e-5


def test_an_open_size_is_named():
    node = helper.make_node("DeformConv", ["x", "w", "offset"], ["y"], name="deform")
    inputs = {"x": (FLOAT, [1, 4, "h", "w"]), "offset": (FLOAT, [1, 18, "a", "b"])}
    constants = {"w": np.ones((2, 4, 3, 3), np.float32)}
    before = make_model([node], inputs, {"y": (FLOAT, list("ncde"))}, constants, opset=19)
    after, report = operate(before, Runtime.TENSORRT, only=[39])
    (record,) = report.records
    assert after is before
    assert (record.node, record.outcome) == ("deform", Outcome.REFUSED)
    assert "target.input_shape" in record.what


def roi_pool(sides, pooled, scale, batch=2):
    node = helper.make_node("MaxRoiPool", ["x", "rois"], ["y"], name="pool", pooled_shape=pooled, spatial_scale=scale)
    inputs = {"x": (FLOAT, [batch, 3, *sides]), "rois": (FLOAT, ["r", 5])}
    return make_model([node], inputs, {"y": (FLOAT, list("abcd"))})


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([1.0, 0.25, 0.3]),
    st.integers(0, 99),
)
def test_any_box_keeps_its_numbers(sides, pooled, scale, seed):
    """Boxes of any size, half-way numbers, outside of the image or turned inside out."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-5, max(sides) / scale + 5, (15, 4))
    corners[:5] = np.round(corners[:5] * 2 * scale) / (2 * scale)
    feed = {
        "x": rng.standard_normal((2, 3, *sides)).astype(np.float32),
        "rois": np.concatenate([rng.integers(0, 2, (15, 1)), corners], 1).astype(np.float32),
    }
    before = roi_pool(sides, pooled, scale)
    after, report = operate(before, Runtime.TENSORRT_RTX, only=[45])
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert worst(before, after, [feed]) == 0


@pytest.mark.parametrize(("sides", "word"), [((6, "w"), "not fixed"), ((2000, 2000), "MiB")])
def test_features_that_cannot_be_tabled_are_named(sides, word):
    after, report = operate(roi_pool(sides, (2, 2), 1.0), Runtime.TENSORRT_RTX, only=[45])
    (record,) = report.records
    assert (record.node, record.outcome) == ("pool", Outcome.REFUSED)
    assert word in record.why
    assert ops(after) == {"MaxRoiPool"}


def test_other_convolutions_and_poolings_are_untouched():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["y"], kernel_shape=[2, 2]),
    ]
    inputs, outputs = {"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"y": (FLOAT, [1, 2, 5, 5])}
    model = make_model(nodes, inputs, outputs, {"w": np.ones((2, 3, 3, 3), np.float32)})
    for row in (39, 45):
        assert_untouched(model, row)
