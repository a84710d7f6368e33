"""Rows 22 and 23: any GridSample as a sum of picked pixels; names that old parsers read wrongly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, assert_untouched, make_model, ops, worst

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgery import Outcome


def sample(sides, outs, opset=20, **attributes):
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], name="sample", **attributes)
    rank = len(sides)
    inputs = {"x": (FLOAT, [2, 3, *sides]), "grid": (FLOAT, [2, *outs, rank])}
    return make_model([node], inputs, {"y": (FLOAT, list("abcde")[: rank + 2])}, None, opset)


def feed(sides, outs, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((2, 3, *sides)).astype(np.float32),
        "grid": rng.uniform(-1.6, 1.6, (2, *outs, len(sides))).astype(np.float32),
    }


def modes(model):
    return [
        {a.name: a for a in node.attribute}.get("mode") for node in model.graph.node if node.op_type == "GridSample"
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["volume", "cubic"]),
    st.sampled_from(["linear", "nearest"]),
    st.sampled_from(["zeros", "border", "reflection"]),
    st.integers(0, 1),
    st.lists(st.integers(2, 9), min_size=6, max_size=6),
)
def test_a_sum_of_pixels_is_what_onnx_runtime_samples(kind, mode, padding, align, sizes):
    rank = 3 if kind == "volume" else 2
    sides, outs = sizes[:rank], sizes[3 : 3 + rank]
    attributes = {"mode": mode if kind == "volume" else "cubic", "padding_mode": padding, "align_corners": align}
    before = sample(sides, outs, **attributes)
    after, report = operate(before, Runtime.TENSORRT, only=[22, 23])
    assert {record.outcome for record in report.records} == {Outcome.DONE}
    assert all(node.input[0] != "x" or kind == "cubic" for node in after.graph.node if node.op_type == "GridSample")
    assert {mode.s for mode in modes(after) if mode is not None} == {b"nearest"}
    assert worst(before, after, [feed(sides, outs)]) <= 1e-5


@pytest.mark.parametrize("opset", [20, 22])
@pytest.mark.parametrize("target", [Runtime.TENSORRT, Runtime.TENSORRT_RTX])
def test_linear_loses_its_name(target, opset):
    before = sample((4, 5), (3, 2), opset, mode="linear", align_corners=1)
    after, _ = operate(before, target)
    assert modes(after) == [None]
    assert worst(before, after, [feed((4, 5), (3, 2))]) == 0


def test_cubic_and_volumes_are_left_to_tensorrt_rtx():
    for before in (sample((4, 5), (3, 2), mode="cubic"), sample((4, 5, 3), (3, 2, 2), mode="nearest")):
        assert operate(before, Runtime.TENSORRT_RTX)[0] is before


def test_old_names_are_untouched():
    for mode in ("bilinear", "nearest", "bicubic"):
        assert_untouched(sample((4, 5), (3, 2), 16, mode=mode), 23)


def test_a_volume_of_open_size_is_named():
    before = sample((4, "h", 3), (3, 2, 2), mode="nearest")
    after, report = operate(before, Runtime.TENSORRT)
    (record,) = report.records
    assert (record.row, record.node, record.outcome) == (22, "sample", Outcome.REFUSED)
    assert ops(after) == {"GridSample"}
