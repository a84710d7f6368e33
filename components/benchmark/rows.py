"""Turns variants and what was measured of them into rows of the leaderboard."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from components.benchmark.measure import Measured
from components.benchmark.trial import setting_name
from components.core.contracts.job import Metric, ModelSource, Runtime
from components.core.contracts.leaderboard import Accuracy, Candidate
from components.core.contracts.variant import Status, Variant
from components.core.formats import milliseconds
from components.core.machine import package_versions

_PACKAGES = {
    Runtime.TORCH: ("torch", "torchvision"),
    Runtime.ONNXRUNTIME: ("onnxruntime", "onnxruntime-gpu"),
    Runtime.OPENVINO: ("openvino",),
    Runtime.TENSORRT: ("tensorrt",),
    Runtime.TENSORRT_RTX: ("tensorrt-rtx-cu13",),
}
ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)


def model_file(variant: Variant, folder: Path, source: ModelSource | None, bundle: Path | None) -> Path | None:
    """The file that makes up a variant; for the user's own torch model, its weights or program."""
    if variant.file:
        return folder / variant.file
    given = source and (source.weights or source.program or source.onnx)
    if given and bundle and variant.runtime == Runtime.TORCH:
        from components.core.models import bundled

        return bundled(given, bundle / "model")
    return None


def model_size(path: Path) -> int:
    """Bytes of a model file and what belongs to it: weights beside an ONNX file or an OpenVINO IR, a plan's parts."""
    from components.core.contracts.run_plan import RUN_PLAN, RunPlan
    from components.core.onnx_wire import external_data_files

    beside: list[Path] = []
    if path.name == RUN_PLAN:
        # Of a part with an engine, the ONNX file is only the way to run it where the engine cannot.
        parts = RunPlan.read(path).parts
        beside = [path.parent / name for part in parts for name in ([part.engine] if part.engine else part.sha256)]
    elif path.suffix == ".onnx":
        beside = [path.parent / location for location in external_data_files(path)]
    elif path.suffix == ".xml":
        beside = [path.with_suffix(".bin")]
    return sum(one.stat().st_size for one in [path, *beside] if one.exists())


@dataclass
class Sheet:
    """New rows of a board, while they are found out.

    Args:
        rung: `baseline` or the rung that made the new ones.
        metric: accuracy that the goal is about.
        order: ids of the new rows, as they will stand on the board.
        baseline_value: that accuracy of the baseline, 0..1; None until its own row is added.
    """

    rung: str
    metric: Metric
    order: list[str]
    baseline_value: float | None = None
    rows: dict[str, Candidate] = field(default_factory=dict)

    def in_order(self) -> list[Candidate]:
        """The rows that were added so far."""
        return [self.rows[name] for name in self.order if name in self.rows]

    def add_untimed(self, origin: "Origin", status: Status | None = None, reason: str = "") -> None:
        """A row of a variant that was not timed: as its step left it, or with the status and reason given."""
        words = "; ".join(part for part in (" ".join(reason.split()), origin.variant.reason) if part)
        self.rows[origin.variant.id] = _row(origin, self.rung, status or origin.variant.status, words)

    def add_measured(self, measured: Measured, origin: "Origin", details: dict[str, Any]) -> None:
        """A row of a variant that was measured; of one that failed in it, with the reason and no numbers."""
        if measured.failure:
            self.add_untimed(origin, Status.FAILED, measured.failure)
            return
        value = measured.scores[self.metric]
        if self.baseline_value is None:
            self.baseline_value = value
        remark, comparison = compared_with_yardstick(measured)
        words = "; ".join(part for part in (remark, _batch_words(measured), origin.variant.reason) if part)
        self.rows[origin.variant.id] = _row(origin, self.rung, Status.OK, words).model_copy(
            update={
                "latency_ms": measured.latency,
                "model_latency_ms": measured.model_latency,
                "speedup": measured.speedup,
                "throughput": measured.throughput,
                "accuracy": Accuracy(metric=self.metric, value=value, drop=self.baseline_value - value),
                "other_accuracy": {name: score for name, score in measured.scores.items() if name != self.metric},
                "peak_rss_bytes": measured.peak_rss_bytes,
                "stable": measured.stable,
                "threads": measured.entry.threads,
                "rounds": measured.rounds,
                "details": origin.variant.details | comparison | details,
            }
        )


class Origin(NamedTuple):
    """A variant, where it comes from, and the file that it is."""

    variant: Variant
    uri: str
    """Folder of the step that made it."""
    file: Path | None


def _row(origin: Origin, rung: str, status: Status, reason: str) -> Candidate:
    from components.core.files import sha256_file

    variant, uri, file = origin
    there = file if file is not None and file.is_file() else None
    installed = package_versions()
    return Candidate(
        id=variant.id,
        rung=rung,
        techniques=variant.techniques,
        runtime=variant.runtime,
        status=status,
        reason=reason,
        reference=variant.reference,
        size_bytes=model_size(there) if there else None,
        uri=uri if variant.file else None,
        file=variant.file,
        sha256=sha256_file(there) if there else None,
        options=variant.options,
        details=variant.details,
        versions={name: installed[name] for name in _PACKAGES[variant.runtime] if name in installed},
    )


def untimed_reason(variant: Variant, reason: str) -> str:
    """Why a variant was not timed, saying of an engine that it was built all the same."""
    if variant.runtime in ENGINES:
        built = (variant.file or "").endswith(".engine")
        return f"{'engine built, ' if built else ''}not timed: {reason}"
    return f"not timed: {reason}"


def compared_with_yardstick(measured: Measured) -> tuple[str, dict[str, Any]]:
    """How a candidate did against the untouched model's best runtime: a remark where it does not win, and numbers."""
    ratio, yardstick = measured.over_yardstick, measured.yardstick
    if yardstick is None or ratio is None or measured.latency is None or yardstick.latency is None:
        return "", {}
    name = yardstick.entry.variant.id
    details = {"over_fp32": {"reference": name, **ratio.model_dump(), "reference_p50_ms": yardstick.latency.p50}}
    if measured.entry.variant.reference or ratio.ci_low > 1:
        return "", details
    numbers = f"({milliseconds(measured.latency.p50)} against {milliseconds(yardstick.latency.p50)})"
    verdict = f"slower than {name}" if ratio.ci_high < 1 else f"not clearly faster than {name}"
    return f"{verdict}, the untouched model {numbers}", details


def _batch_words(measured: Measured) -> str:
    """Says that the latencies are those of a whole batch, where it has more than one image."""
    if measured.batch == 1 or measured.latency is None:
        return ""
    return (
        f"latencies are of a batch of {measured.batch}: {milliseconds(measured.latency.p50 / measured.batch)} an image"
    )


def timing_details(measured: Measured, tried: dict[str, float]) -> dict[str, Any]:
    """How it was timed, for the report."""
    entry = measured.entry
    found: dict[str, Any] = {"calls": sum(len(one["end_to_end_ms"]) for one in measured.raw["rounds"].values())}
    if measured.batch > 1 and measured.latency:
        # The row's latencies are those of a call, which is a whole batch.
        found |= {"batch": measured.batch, "p50_ms_an_image": round(measured.latency.p50 / measured.batch, 4)}
    if entry.variant.runtime == Runtime.TORCH:
        found["setting"] = setting_name(entry.threads, passive=entry.passive)
        found["passive"] = entry.passive
    if tried:
        found["p50_ms_by_setting"] = tried
    return {"timing": found}
