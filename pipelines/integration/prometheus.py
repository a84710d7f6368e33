"""The results of a run in Prometheus' text format, for the node exporter's textfile collector or a push gateway.

Names follow Prometheus' conventions: a prefix, base units (seconds, bytes, ratios of 1), the unit at the end. What
tells series apart is bounded: at most `MAX_CANDIDATES` rows of a board, the most important ones first.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import Status
from components.core.errors import UserError
from pipelines.integration.results import Results, by_importance

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

MAX_CANDIDATES = 64
"""Rows of a board that get series of their own."""
MAX_LABEL = 128
"""Characters of a label's value."""
SUFFIX = ".prom"
"""The textfile collector reads no other files."""
_ROW = ("job", "candidate", "rung", "runtime")


def write_textfile(results: Results, path: Path) -> None:
    """Writes the metrics of a run; a reader sees the old file or the new one, never a part.

    Args:
        results: of the run.
        path: a file that ends in ``.prom``; one job a file, since a new run's file replaces the last one's.

    Raises:
        UserError: the file cannot be written, or is not one that the collector would read.
    """
    from prometheus_client import write_to_textfile

    if path.suffix != SUFFIX:
        raise UserError(f"--out: given {path}, accepted: a file name that ends in {SUFFIX}, which the collector reads")
    try:
        write_to_textfile(str(path), _registry(results))
    except OSError as error:
        raise UserError(f"--out: {path}: {error.strerror}; give a folder that can be written") from error


def as_text(results: Results) -> str:
    """The metrics of a run in the text format."""
    from prometheus_client import generate_latest

    return generate_latest(_registry(results)).decode()


def metrics(results: Results) -> Iterator["Metric"]:
    """The metrics of a run, each with all of its samples."""
    yield from _of_the_run(results)
    yield from _of_the_candidates(results)


def _registry(results: Results) -> "CollectorRegistry":
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    class Board(Collector):
        """Hands out what was measured once; nothing is counted in this process."""

        def collect(self) -> Iterator["Metric"]:
            return metrics(results)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Board())
    return registry


def _of_the_run(results: Results) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    board, record = results.board, results.record
    job = _label(board.job)
    info = InfoMetricFamily("hasten_run", "The last run of a job.", labels=["job"])
    facts = {
        "winner": board.winner or "",
        "baseline": board.baseline,
        "metric": str(board.goal.metric),
        "run_id": record.run_id if record else "",
        "version": record.version if record else "",
    }
    info.add_metric([job], {key: _label(value) for key, value in facts.items()})
    yield info
    met = GaugeMetricFamily("hasten_run_goal_met", "Whether a candidate meets the job's goal.", labels=["job"])
    met.add_metric([job], float(board.goal_met))
    yield met
    count = GaugeMetricFamily("hasten_run_candidates", "Rows of the leaderboard.", labels=["job", "status"])
    for status in Status:
        count.add_metric([job, str(status)], sum(row.status is status for row in board.candidates))
    yield count
    yield from _of_the_ledger(job, board)
    if record is None:
        return
    if record.started:
        started = GaugeMetricFamily("hasten_run_start_timestamp_seconds", "Unix time of the start.", labels=["job"])
        started.add_metric([job], datetime.fromisoformat(record.started).timestamp())
        yield started
    if record.wall_seconds is not None:
        wall = GaugeMetricFamily("hasten_run_duration_seconds", "From the command to the result.", labels=["job"])
        wall.add_metric([job], record.wall_seconds)
        yield wall
    taken: dict[tuple[str, str], float] = {}
    for each in record.steps:
        taken[each.step, each.rung] = taken.get((each.step, each.rung), 0.0) + each.seconds
    steps = GaugeMetricFamily(
        "hasten_run_step_duration_seconds",
        "Inside a step's logic; 0 for one from the cache.",
        labels=["job", "step", "rung"],
    )
    for (name, rung), seconds in taken.items():
        steps.add_metric([job, _label(name), _label(rung)], seconds)
    yield steps


def _of_the_ledger(job: str, board: Leaderboard) -> Iterator["Metric"]:
    """What each rung cost, and what a rung that was not climbed would have cost at least, where that is known."""
    from prometheus_client.core import GaugeMetricFamily

    if board.ledger is None:
        return
    kinds = {"wall": "wall_seconds", "core": "core_seconds", "gpu": "gpu_seconds"}
    cost = GaugeMetricFamily(
        "hasten_run_cost_seconds",
        "Of a rung, inside its steps; what the cache gave costs nothing. No rung: before the first one.",
        labels=["job", "rung", "kind"],
    )
    for bill in board.ledger.rungs:
        for kind, name in kinds.items():
            cost.add_metric([job, _label(bill.rung), kind], getattr(bill, name))
    yield cost
    saved = GaugeMetricFamily(
        "hasten_run_saved_seconds",
        "What a rung that was not climbed would have cost at least; no sample where that is unknown.",
        labels=["job", "rung", "kind"],
    )
    for each in board.ledger.not_climbed:
        for kind, name in kinds.items():
            if (seconds := getattr(each, name)) is not None:
                saved.add_metric([job, _label(each.rung), kind], seconds)
    yield saved


def _of_the_candidates(results: Results) -> Iterator["Metric"]:
    from prometheus_client.core import GaugeMetricFamily

    board = results.board
    rows = [row for row in by_importance(board) if row.status is Status.OK]
    left_out = GaugeMetricFamily(
        "hasten_run_candidates_left_out",
        f"Measured candidates without series of their own: a run shows {MAX_CANDIDATES}.",
        labels=["job"],
    )
    left_out.add_metric([_label(board.job)], max(len(rows) - MAX_CANDIDATES, 0))
    yield left_out
    for name, (words, value) in _FIELDS.items():
        found = [(row, number) for row in rows[:MAX_CANDIDATES] if (number := value(row)) is not None]
        if not found:
            continue
        family = GaugeMetricFamily(f"hasten_candidate_{name}", words, labels=_ROW)
        for row, number in found:
            family.add_metric([_label(text) for text in (board.job, row.id, row.rung, str(row.runtime))], number)
        yield family
    accuracy = GaugeMetricFamily(
        "hasten_candidate_accuracy_ratio", "Accuracy on the test split, 0 to 1.", labels=[*_ROW, "metric"]
    )
    for row in rows[:MAX_CANDIDATES]:
        if row.accuracy is None:
            continue
        labels = [_label(text) for text in (board.job, row.id, row.rung, str(row.runtime))]
        for metric, number in {row.accuracy.metric: row.accuracy.value, **row.other_accuracy}.items():
            accuracy.add_metric([*labels, str(metric)], number)
    yield accuracy


def _latency(percentile: str) -> Callable[[Candidate], float | None]:
    def seconds(row: Candidate) -> float | None:
        return getattr(row.latency_ms, percentile) / 1000 if row.latency_ms else None

    return seconds


_FIELDS: dict[str, tuple[str, Callable[[Candidate], float | None]]] = {
    "latency_p50_seconds": ("Median end-to-end latency a batch.", _latency("p50")),
    "latency_p90_seconds": ("90th percentile of the end-to-end latency a batch.", _latency("p90")),
    "latency_p99_seconds": ("99th percentile of the end-to-end latency a batch.", _latency("p99")),
    "speedup_ratio": ("Speed-up of p50 over the baseline.", lambda row: row.speedup.ratio if row.speedup else None),
    "speedup_low_ratio": (
        "Lower end of the speed-up's 95% confidence interval.",
        lambda row: row.speedup.ci_low if row.speedup else None,
    ),
    "speedup_high_ratio": (
        "Upper end of the speed-up's 95% confidence interval.",
        lambda row: row.speedup.ci_high if row.speedup else None,
    ),
    "throughput_images_per_second": ("End to end, one process.", lambda row: row.throughput),
    "accuracy_drop_ratio": (
        "Accuracy lost to the baseline in the goal's metric; a gain is negative.",
        lambda row: row.accuracy.drop if row.accuracy else None,
    ),
    "size_bytes": ("Size of the model file.", lambda row: row.size_bytes),
    "peak_memory_bytes": ("Peak resident memory of the candidate's process.", lambda row: row.peak_rss_bytes),
    "meets_goal": ("Whether it meets the job's goal.", lambda row: float(row.meets_goal)),
}
"""Name after ``hasten_candidate_`` -> help and value."""


def _label(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 3]}..."
