"""Row 14: RoiAlign, against ONNX Runtime's own and TensorRT-RTX's parser and builder."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, INT64, assert_untouched, export, make_model, needs_rtx, ops, rtx, surgered, worst
from torch import nn

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgeries import row14_roi_align
from components.surgery.surgery import TOLERANCE, Options, Outcome


def roi_model(count, channels, height, width, boxes, *, bins=(7, 7), samples=2, scale=1.0, half_pixel=False, **more):
    mode = "half_pixel" if half_pixel else "output_half_pixel"
    node = helper.make_node(
        "RoiAlign",
        ["features", "rois", "image"],
        ["pooled"],
        name="pool",
        output_height=bins[0],
        output_width=bins[1],
        sampling_ratio=samples,
        spatial_scale=scale,
        coordinate_transformation_mode=mode,
        **more,
    )
    given = {
        "features": (FLOAT, [count, channels, height, width]),
        "rois": (FLOAT, [boxes, 4]),
        "image": (INT64, [boxes]),
    }
    return make_model([node], given, {"pooled": (FLOAT, [boxes, channels, *bins])})


def feeds(count, channels, height, width, boxes, scale=1.0, seeds=range(3)):
    """Boxes inside, across and outside the border, tiny and inverted ones, on noise."""
    made = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        centre = rng.uniform(-4, max(height, width) + 4, (boxes, 2))
        size = rng.uniform(-0.5, max(height, width), (boxes, 2)) * rng.choice([1, 0.1, 0.001], (boxes, 1))
        rois = np.concatenate([centre - size / 2, centre + size / 2], 1) / scale
        whole = rng.random(boxes) < 0.2
        rois[whole] = np.round(rois[whole])
        made.append(
            {
                "features": rng.standard_normal((count, channels, height, width)).astype(np.float32),
                "rois": rois.astype(np.float32),
                "image": rng.integers(0, count, boxes),
            }
        )
    return made


CASES = {
    "one level": {"count": 1, "channels": 3, "height": 20, "width": 24, "boxes": 40},
    "aligned": {"count": 1, "channels": 3, "height": 20, "width": 24, "boxes": 40, "half_pixel": True},
    "three levels": {"count": 3, "channels": 4, "height": 53, "width": 53, "boxes": 60},
    "five levels, oblong": {"count": 5, "channels": 2, "height": 9, "width": 33, "boxes": 40, "half_pixel": True},
    "scaled": {"count": 2, "channels": 2, "height": 16, "width": 16, "boxes": 40, "scale": 0.25},
    "one sample": {"count": 1, "channels": 2, "height": 12, "width": 12, "boxes": 40, "samples": 1},
    "three samples": {"count": 2, "channels": 2, "height": 12, "width": 12, "boxes": 40, "samples": 3},
    "oblong bins": {"count": 1, "channels": 2, "height": 12, "width": 12, "boxes": 20, "bins": (3, 5)},
    "one pixel": {"count": 2, "channels": 2, "height": 1, "width": 1, "boxes": 20},
    "one row": {"count": 1, "channels": 2, "height": 1, "width": 9, "boxes": 20},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_onnx_runtimes_roi_align(case):
    before = roi_model(**case)
    after = surgered(before)
    assert "RoiAlign" not in ops(after)
    shape = {key: case[key] for key in ("count", "channels", "height", "width", "boxes")}
    assert worst(before, after, feeds(**shape, scale=case.get("scale", 1.0))) < TOLERANCE


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    bins=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    samples=st.integers(1, 3),
    half_pixel=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_onnx_runtimes_roi_align_for_any_shape(count, height, width, bins, samples, half_pixel, seed):
    before = roi_model(count, 2, height, width, 12, bins=bins, samples=samples, half_pixel=half_pixel)
    after = operate(before, Runtime.TENSORRT_RTX, seeds=(0,))[0]
    assert "RoiAlign" not in ops(after)
    assert worst(before, after, feeds(count, 2, height, width, 12, seeds=[seed])) < TOLERANCE


@needs_rtx
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tensorrt_rejects_roi_align_and_builds_the_result(case):
    before = roi_model(**case)
    assert "ROIAlign plugin was not found" in rtx(before).words or rtx(before).stage == "reject"
    assert rtx(surgered(before))[::2] == ("ok", 0)


class Pool(nn.Module):
    def __init__(self, aligned):
        super().__init__()
        self.aligned = aligned

    def forward(self, features, rois):
        return torchvision.ops.roi_align(features, rois, 5, 0.5, 2, self.aligned)


@pytest.mark.parametrize("aligned", [False, True])
def test_equals_torchvision_as_exported(aligned):
    features, size = torch.randn(3, 4, 20, 20), torch.rand(30, 2) * 30
    corner = torch.rand(30, 2) * 40 - 5
    rois = torch.cat([torch.randint(0, 3, (30, 1)).float(), corner, corner + size], 1)
    before = export(Pool(aligned), features, rois, input_names=["features", "rois"])
    after = surgered(before)
    feed = {"features": features.numpy(), "rois": rois.numpy()}
    assert worst(before, after, [feed]) < TOLERANCE
    from components.surgery.evaluate import Model

    (found,) = Model(after)(feed).values()
    np.testing.assert_allclose(found, Pool(aligned)(features, rois).numpy(), atol=2e-5)


def test_a_number_of_boxes_that_is_open_stays_open_and_may_be_none():
    before = roi_model(2, 3, 16, 16, "boxes")
    after = surgered(before)
    for boxes in (0, 1, 7):
        assert worst(before, after, feeds(2, 3, 16, 16, boxes, seeds=[0])) < TOLERANCE


def test_a_large_atlas_says_what_float32_resolves(monkeypatch):
    monkeypatch.setattr(row14_roi_align, "MAX_PADDING", 0)
    case = {"count": 4, "channels": 2, "height": 100, "width": 136, "boxes": 80}
    before = roi_model(**case)
    after, report = operate(before, Runtime.TENSORRT)
    (record,) = [record for record in report.records if record.row == 14]
    assert "float32 resolves a coordinate of it" in record.what
    assert worst(before, after, feeds(**case)) < 6.5e-5


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"samples": 0}, "the number of samples depends on the size of each box"),
        ({"mode": "max"}, "mode is 'max'"),
        ({"height": "h"}, "the shape of its feature map is not fixed"),
    ],
)
def test_what_has_no_static_form_is_refused_with_the_way_out(changes, why):
    model = roi_model(**{"count": 1, "channels": 2, "height": 12, "width": 12, "boxes": 5} | changes)
    after, report = operate(model, Runtime.TENSORRT)
    assert after is model
    (record,) = report.records
    assert (record.outcome, record.max_error) == (Outcome.REFUSED, None)
    assert why in record.why
    assert record.what


def test_an_adaptive_ratio_can_be_given_a_number():
    adaptive = roi_model(2, 2, 12, 12, 5, samples=0)
    fixed = roi_model(2, 2, 12, 12, 5, samples=2)
    after, report = operate(adaptive, Runtime.TENSORRT, options=Options(sampling_ratio=2))
    assert "RoiAlign" not in ops(after)
    (record,) = [record for record in report.done if record.row == 14]
    assert record.max_error > TOLERANCE
    assert "check the accuracy" in record.what
    assert worst(fixed, after, feeds(2, 2, 12, 12, 5)) < TOLERANCE


def test_cpu_runtimes_keep_the_native_operator():
    for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO):
        model = roi_model(1, 2, 12, 12, 5)
        assert operate(model, runtime)[0] is model


def test_graphs_without_the_pattern_are_untouched():
    given = {"x": (FLOAT, [1, 2, 4, 4]), "grid": (FLOAT, [1, 3, 3, 2])}
    assert_untouched(
        make_model([helper.make_node("GridSample", ["x", "grid"], ["y"])], given, {"y": (FLOAT, [1, 2, 3, 3])}), 14
    )
