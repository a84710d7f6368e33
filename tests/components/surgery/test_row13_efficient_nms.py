"""Row 13: what the table does not show: half precision, refusals, and many random settings."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, RTX, make_model, ops

from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.proof import difference
from components.surgery.surgeries.row12_non_max_suppression import fixed_point_probe
from components.surgery.surgery import Options, Outcome

sys.path.insert(0, str(Path(__file__).with_name("table")))
from cases_row13 import ATTRIBUTES, efficient_nms, feeds, model


def operated(before, **options):
    after, report = operate(before, RTX, **options)
    (record,) = [record for record in report.records if record.row == 13]
    return after, record


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 30),
    classes=st.integers(1, 4),
    coding=st.integers(0, 1),
    agnostic=st.integers(0, 1),
    activation=st.integers(0, 1),
    background=st.integers(-1, 3),
    most=st.integers(1, 40),
    threshold=st.sampled_from([0.0, 0.25, 0.7]),
)
def test_any_setting_equals_the_documented_plugin(
    seed, count, classes, coding, agnostic, activation, background, most, threshold
):
    asked = ATTRIBUTES | {
        "box_coding": coding,
        "class_agnostic": agnostic,
        "score_activation": activation,
        "background_class": background,
        "max_output_boxes": most,
        "score_threshold": threshold,
    }
    shape = (1, count, 4)
    after, record = operated(model(shape, classes, **asked), only=[13])
    assert record.outcome is Outcome.DONE
    feed = feeds(np.random.default_rng(seed), shape, classes, centred=coding == 1, logits=activation == 1)
    feed["scores"] = np.round(feed["scores"], 1)  # ties
    expected, found = efficient_nms(feed["boxes"], feed["scores"], None, asked), Model(after)(feed)
    assert max(difference(expected[name], found[name]) for name in expected) <= 1e-5


def test_half_precision_keeps_its_types():
    half = onnx.TensorProto.FLOAT16
    node = helper.make_node("EfficientNMS_TRT", ["boxes", "scores"], ["n", "b", "s", "c"], max_output_boxes=5)
    outputs = {"n": (onnx.TensorProto.INT32, [1, 1]), "b": (half, [1, 5, 4]), "s": (half, [1, 5])}
    before = make_model(
        [node],
        {"boxes": (half, [1, 9, 4]), "scores": (half, [1, 9, 2])},
        outputs | {"c": (onnx.TensorProto.INT32, [1, 5])},
    )
    after, _ = operated(before)
    feed = {name: value.astype(np.float16) for name, value in feeds(np.random.default_rng(0), (1, 9, 4), 2).items()}
    found = Model(after)(feed)
    assert [found[name].dtype for name in "nbsc"] == [np.int32, np.float16, np.float16, np.int32]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"boxes": (FLOAT, [1, "n", 4]), "scores": (FLOAT, [1, "n", 3])}, "not fixed"),
        ({"boxes": (FLOAT, [16, 4096, 4]), "scores": (FLOAT, [16, 4096, 3])}, "MiB"),
    ],
)
def test_what_cannot_be_replaced_says_why(inputs, words):
    node = helper.make_node("EfficientNMS_TRT", list(inputs), ["n", "b", "s", "c"], name="nms", max_output_boxes=5)
    outputs = dict.fromkeys(("b", "s"), (FLOAT, None)) | dict.fromkeys(("n", "c"), (onnx.TensorProto.INT32, None))
    before = make_model([node], inputs, {name: outputs[name] for name in "nbsc"})
    after, record = operated(before)
    assert after is before
    assert (record.outcome, record.node) == (Outcome.REFUSED, "nms")
    assert words in record.why


def test_too_few_rounds_show_in_the_probe():
    """A row of boxes, each overlapping the next, is the longest chain of suppressions."""
    left = 3.0 * np.arange(40, dtype=np.float32)
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], 1)[None]
    scores = np.linspace(0.99, 0.5, 40, dtype=np.float32).reshape(1, 40, 1)
    unsettled = {}
    for rounds in (4, 64):
        after, _ = operated(model((1, 40, 4), 1), options=Options(nms_rounds=rounds))
        found = Model(fixed_point_probe(after))({"boxes": boxes, "scores": scores})
        (unsettled[rounds],) = [value for name, value in found.items() if name.endswith("/unsettled")]
    assert unsettled[4] > 0
    assert unsettled[64] == 0


def test_no_plugin_is_left():
    after, _ = operated(model())
    assert "EfficientNMS_TRT" not in ops(after)
