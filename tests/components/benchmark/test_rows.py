"""Sizes, remarks and details of rows."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from components.benchmark.measure import Entry, Measured
from components.benchmark.rows import (
    Origin,
    Sheet,
    compared_with_yardstick,
    model_file,
    model_size,
    timing_details,
    untimed_reason,
)
from components.core.contracts.job import Metric, ModelSource, Runtime
from components.core.contracts.leaderboard import Latency, Ratio
from components.core.contracts.variant import Status, Variant


def measured(name: str, p50: float, runtime=Runtime.ONNXRUNTIME, **fields) -> Measured:
    variant = Variant(id=name, runtime=runtime, techniques=[], reference=fields.pop("reference", False))
    latency = Latency(p50=p50, p90=p50, p99=p50)
    return Measured(Entry(variant, None, 2), latency=latency, model_latency=latency, **fields)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.2, 1.4, ""),
        (0.5, 0.9, "slower than fp32, the untouched model (20.0 ms against 10.0 ms)"),
        (0.9, 1.1, "not clearly faster than fp32, the untouched model (20.0 ms against 10.0 ms)"),
    ],
)
def test_a_candidate_that_does_not_beat_the_best_fp32_runtime_says_so(low, high, words):
    ratio = Ratio(ratio=(low + high) / 2, ci_low=low, ci_high=high)
    one = measured("int8", 20.0, yardstick=measured("fp32", 10.0, reference=True), over_yardstick=ratio)
    remark, details = compared_with_yardstick(one)
    assert remark == words
    assert details["over_fp32"] == {"reference": "fp32", **ratio.model_dump(), "reference_p50_ms": 10.0}
    assert compared_with_yardstick(measured("int8", 20.0)) == ("", {})


def test_size_counts_the_weights_beside_the_file(tmp_path, detector):
    plain = detector(tmp_path / "plain.onnx")
    assert model_size(plain) == plain.stat().st_size
    model = onnx.load(plain)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(5000, np.float32), "large"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=1024)
    assert model_size(tmp_path / "m.onnx") == (tmp_path / "m.onnx").stat().st_size + 20_000
    (tmp_path / "ir.xml").write_bytes(b"12")
    (tmp_path / "ir.bin").write_bytes(b"345")
    assert model_size(tmp_path / "ir.xml") == 5


def test_the_users_torch_model_is_its_weights(tmp_path):
    source = ModelSource(factory="a:b", weights="s3://x/w.pt")
    eager = Variant(id="eager", runtime=Runtime.TORCH, techniques=[])
    assert model_file(eager, tmp_path, source, tmp_path) == tmp_path / "model/w.pt"
    assert model_file(eager, tmp_path, ModelSource(program="p.pt2"), tmp_path) == tmp_path / "model/p.pt2"
    other = Variant(id="x", runtime=Runtime.OPENVINO, techniques=[])
    assert model_file(other, tmp_path, source, tmp_path) is None


def test_reasons_for_not_timing():
    engine = Variant(id="e", runtime=Runtime.TENSORRT, techniques=[], file="m.engine")
    assert untimed_reason(engine, "no GPU") == "engine built, not timed: no GPU"
    assert untimed_reason(engine.model_copy(update={"file": "m.onnx"}), "no GPU") == "not timed: no GPU"


def test_how_torch_was_run_is_kept_for_the_next_rung():
    raw = {"rounds": {"0": {"end_to_end_ms": [1, 2], "model_ms": [1, 1]}}}
    details = timing_details(measured("eager", 1.0, Runtime.TORCH, raw=raw), {"2 threads": 1.0})
    assert details["timing"] == {
        "calls": 2,
        "setting": "2 threads",
        "passive": True,
        "p50_ms_by_setting": {"2 threads": 1.0},
    }


def test_rows_stand_in_the_order_of_the_variants():
    sheet = Sheet("int8", Metric.MAP50, ["a", "b"], baseline_value=0.5)
    for name in ("b", "a"):
        sheet.add_untimed(Origin(Variant(id=name, runtime="torch", techniques=[]), "u", None), Status.FAILED, "a\nb")
    assert [row.id for row in sheet.in_order()] == ["a", "b"]
    assert sheet.rows["a"].reason == "a b"


def test_the_first_row_sets_what_accuracy_drops_from():
    sheet = Sheet("baseline", Metric.MAP50, ["a", "b"])
    speed = Ratio(ratio=1, ci_low=1, ci_high=1)
    for name, score in (("a", 0.5), ("b", 0.75)):
        one = measured(name, 1.0, speedup=speed, scores={Metric.MAP50: score, Metric.MAP: 0.1})
        sheet.add_measured(one, Origin(one.entry.variant, "u", None), {})
    assert [row.accuracy.drop for row in sheet.in_order()] == [0, -0.25]
    assert sheet.rows["b"].other_accuracy == {Metric.MAP: 0.1}
