"""Boards to try the leaderboard on: numbers as a compact Faster R-CNN on two CPU cores gives them."""

from typing import Any

from components.core.contracts.job import Goal, Job, Metric, Runtime
from components.core.contracts.leaderboard import Accuracy, Candidate, Latency, Leaderboard, Ratio
from components.core.contracts.variant import Status

BASE_P50 = 61.2
BASE_MAP50 = 0.421
GOAL = Goal(min_speedup="2x", max_accuracy_drop=0.02)


def job(goal: Goal = GOAL, **ladder: Any) -> Job:
    split = {"annotations": "a.json", "images": "images"}
    return Job(
        name="trees",
        model={"onnx": "model.onnx"},
        data={"train": split, "test": split},
        target={"runtimes": ["openvino"], "input_shape": [1, 3, 256, 256]},
        goal=goal,
        ladder=ladder,
    )


def row(
    name: str,
    p50: float = 30.0,
    map50: float = BASE_MAP50,
    *,
    ratio: float | None = None,
    width: float = 0.03,
    size: int = 12_000_000,
    **fields: Any,
) -> Candidate:
    """A measured row; `width` is the relative half-width of the speed-up's interval."""
    ratio = BASE_P50 / p50 if ratio is None else ratio
    return Candidate(
        **{
            "id": name,
            "rung": name.partition("-")[0],
            "techniques": ["surgery", name.partition("-")[0]],
            "runtime": Runtime.OPENVINO,
            "status": Status.OK,
            "latency_ms": Latency(p50=p50, p90=p50 * 1.1, p99=p50 * 1.3),
            "model_latency_ms": Latency(p50=p50 * 0.9, p90=p50, p99=p50 * 1.2),
            "speedup": Ratio(ratio=ratio, ci_low=ratio * (1 - width), ci_high=ratio * (1 + width)),
            "throughput": 1000 / p50,
            "accuracy": Accuracy(metric=Metric.MAP50, value=map50, drop=BASE_MAP50 - map50),
            "other_accuracy": {Metric.MAP: map50 / 2},
            "size_bytes": size,
            "peak_rss_bytes": 300_000_000,
            "stable": True,
            **fields,
        }
    )


def baseline(**fields: Any) -> Candidate:
    return row(
        "eager",
        BASE_P50,
        **{"width": 0.0, "reference": True, "rung": "baseline", "techniques": [], "runtime": Runtime.TORCH, **fields},
    )


def yardstick(name: str = "fp32-openvino", p50: float = 33.0, **fields: Any) -> Candidate:
    return row(name, p50, **{"reference": True, "rung": "baseline", "techniques": [], **fields})


def absent(name: str, status: Status = Status.FAILED, reason: str = "QDQ placement left no layer") -> Candidate:
    return Candidate(
        id=name, rung="int8", techniques=["surgery", "int8"], runtime=Runtime.OPENVINO, status=status, reason=reason
    )


def board(*rows: Candidate, goal: Goal = GOAL) -> Leaderboard:
    return Leaderboard(job="trees", goal=goal, baseline="eager", candidates=list(rows))
