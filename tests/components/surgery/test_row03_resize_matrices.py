"""Rows 3 to 6: a Resize of any mode, coordinates and sizes against its matrices."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, assert_untouched, make_model, ops, worst

from components.core.contracts.job import Runtime
from components.surgery.evaluate import EvaluationError, Model
from components.surgery.operate import operate
from components.surgery.surgery import Outcome

ROWS = [3, 4, 5, 6]


def resize(sides, sizes, batch=2, region=(0, 0, 1, 1), **attributes):
    node = helper.make_node("Resize", ["x", "roi", "", "sizes"], ["y"], name="resize", axes=[2, 3], **attributes)
    constants = {"sizes": np.array(sizes), "roi": np.array(region, np.float32)}
    return make_model([node], {"x": (FLOAT, [batch, 3, *sides])}, {"y": (FLOAT, list("abcd"))}, constants, opset=19)


@st.composite
def resizes(draw):
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    kind = draw(st.sampled_from(["antialias", "policy", "crop", "symmetric"]))
    attributes = {"mode": mode}
    if kind == "antialias":
        attributes["antialias"] = 1
    if kind == "policy":
        attributes["keep_aspect_ratio_policy"] = draw(st.sampled_from(["not_larger", "not_smaller"]))
    coordinates = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    given_coordinates = {"crop": ["tf_crop_and_resize"], "symmetric": ["half_pixel_symmetric"]}.get(kind, coordinates)
    attributes["coordinate_transformation_mode"] = draw(st.sampled_from(given_coordinates))
    if mode == "nearest":
        attributes["nearest_mode"] = draw(st.sampled_from(["round_prefer_floor", "floor", "ceil", "round_prefer_ceil"]))
    if mode == "cubic":
        attributes["exclude_outside"] = draw(st.integers(0, 1))
    if kind == "crop":
        starts = [draw(st.floats(-0.2, 0.5)) for _ in range(2)]
        attributes["region"] = [*starts, *(start + draw(st.floats(0.2, 0.7)) for start in starts)]
        attributes["extrapolation_value"] = 3.5
    side = st.integers(2, 25)
    return [draw(side), draw(side)], [draw(side), draw(side)], attributes


@settings(max_examples=50, deadline=None)
@given(resizes())
def test_any_resize_keeps_its_numbers(case):
    sides, sizes, attributes = case
    before = resize(sides, sizes, **attributes)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, *sides)).astype(np.float32)}
    try:
        assume(Model(before)(feed)["y"].size)  # a kept aspect ratio can leave nothing
    except EvaluationError:
        assume(False)
    after, report = operate(before, Runtime.TENSORRT_RTX, only=ROWS)
    assert [record.outcome for record in report.records] == [Outcome.DONE]
    assert worst(before, after, [feed]) <= 1e-5


def test_an_open_batch_stays_open():
    before = resize([20, 31], [7, 9], batch="n", mode="linear", antialias=1)
    after, _ = operate(before, Runtime.TENSORRT_RTX)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((batch, 3, 20, 31)).astype(np.float32)} for batch in (1, 5)]
    assert ops(after) == {"MatMul"}
    assert worst(before, after, feeds) <= 1e-6


def test_an_open_side_is_named():
    before = resize([20, "w"], [7, 9], mode="linear", antialias=1)
    after, report = operate(before, Runtime.TENSORRT_RTX)
    (record,) = report.records
    assert (record.row, record.node, record.outcome) == (3, "resize", Outcome.REFUSED)
    assert "dimension 3" in record.why
    assert "target.input_shape" in record.what
    assert ops(after) == {"Resize"}


@pytest.mark.parametrize("row", [3, 5, 6])
def test_plain_resizes_are_untouched(row):
    for mode in ("nearest", "linear", "cubic"):
        assert_untouched(resize([8, 9], [5, 20], mode=mode, keep_aspect_ratio_policy="stretch"), row)


def test_cubic_is_taken_apart_for_tensorrt_only():
    before = resize([8, 9], [5, 20], mode="cubic")
    assert operate(before, Runtime.TENSORRT_RTX)[0] is before
    assert ops(operate(before, Runtime.TENSORRT)[0]) == {"MatMul"}
