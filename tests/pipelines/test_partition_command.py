"""`hasten partition` on a stock detector, and `hasten benchmark` of the plan on the CPU."""

import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from tiny_job import hasten, make_tiny_job

from components.core.contracts.leaderboard import Leaderboard
from components.core.contracts.run_plan import RUN_PLAN, RunPlan
from fixtures.detectors import tiny_faster_rcnn

pytestmark = pytest.mark.slow
pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra tensorrt-rtx)")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A stock Faster R-CNN as torchvision exports it, with a data-dependent tail, and images."""
    folder = tmp_path_factory.mktemp("partition")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tiny_faster_rcnn(),
            ([torch.rand(3, 96, 96)],),
            str(folder / "stock.onnx"),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["boxes", "labels", "scores"],
        )
    make_tiny_job(folder / "job")
    return folder


def run(place: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return hasten(place / "cache", *arguments)


def test_a_stock_detector_gets_two_engines_and_an_honest_row(place):
    done = run(place, "partition", place / "stock.onnx", "--out", place / "plan", "--json")
    assert done.returncode == 0, done.stderr
    plan = RunPlan.model_validate_json(done.stdout)
    assert plan == RunPlan.read(place / "plan" / RUN_PLAN)
    assert [str(part.runtime) for part in plan.parts] == ["tensorrt-rtx", "onnxruntime"] * 2
    assert plan.parts[0].work == {"Conv": 18}
    assert plan.parts[2].work == {"Gemm": 4}
    operators = {left.operator for left in plan.left}
    assert {"NonZero", "RoiAlign"} <= operators
    assert plan.proof.max_error == 0
    measured = run(
        place,
        "benchmark",
        place / "plan" / RUN_PLAN,
        *("--annotations", place / "job" / "test" / "annotations.json", "--images", place / "job" / "test" / "images"),
        *("--rounds", "3", "--threads", "1", "--out", place / "measured", "--json"),
    )
    assert measured.returncode == 0, measured.stderr
    (row,) = Leaderboard.model_validate_json(measured.stdout).candidates
    assert row.runtime == "onnxruntime"
    assert row.latency_ms is not None
    assert row.accuracy is not None
    assert row.accuracy.value > 0.5  # the truth is what the same model finds in eager mode
    assert "the engine parts part-00, part-02 ran in ONNX Runtime on the CPU (" in row.reason
    assert row.file == RUN_PLAN
    assert row.size_bytes is not None
    assert row.size_bytes > (place / "plan" / "part-00-tensorrt-rtx.engine").stat().st_size


def test_mistakes_cost_one_line_and_leave_nothing(place):
    done = run(place, "partition", place / "stock.onnx", "--runtime", "openvino", "--out", place / "never")
    assert done.returncode == 2
    assert done.stderr == "hasten: --runtime: given 'openvino', accepted: tensorrt, tensorrt-rtx\n"
    damaged = place / "damaged.onnx"
    damaged.write_bytes((place / "stock.onnx").read_bytes()[:-1000])
    done = run(place, "partition", damaged, "--out", place / "never")
    assert done.returncode == 2
    assert done.stderr.count("hasten: ") == 1
    assert not (place / "never").exists()
