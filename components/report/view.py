"""The board as the report tells it: every number as text, every list in the order in which it is shown."""

from dataclasses import dataclass

from components.core import formats
from components.core.contracts.job import Goal, Job
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import Status
from components.core.ledger_words import HEADER, ledger_rows, saved_lines
from components.report.cards import Card, cards
from components.report.charts.bars import measured
from components.report.charts.scatter import accuracy_of
from components.report.theme import Kind, kind_of


@dataclass(frozen=True)
class Figure:
    """One of the numbers at the top."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Line:
    """A row of the candidates table; empty text: not measured."""

    id: str
    mark: str
    """``winner``, ``meets the goal``, ``baseline``, ``yardstick`` or nothing."""
    kind: Kind
    on_front: bool
    techniques: str
    runtime: str
    status: str
    failed: bool
    unstable: bool
    reason: str
    p50: str
    p99: str
    speedup: str
    interval: str
    accuracy: str
    drop: str
    throughput: str
    size: str
    rss: str


@dataclass(frozen=True)
class View:
    """What the templates need."""

    name: str
    goal_met: bool
    headline: str
    why: str
    goal: tuple[str, ...]
    missed: tuple[str, ...]
    focus: str
    """Id of the row that the figures are about: the winner or the nearest candidate; empty: none."""
    figures: tuple[Figure, ...]
    metric: str
    lines: tuple[Line, ...]
    ledger_header: tuple[str, ...]
    ledger: tuple[tuple[str, ...], ...]
    """What each rung cost, as cells; empty: nobody kept account."""
    saved: tuple[str, ...]
    cards: tuple[tuple[str, tuple[Card, ...]], ...]
    job: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]


def view(board: Leaderboard, job: Job) -> View:
    """Reads the board once, for both templates."""
    baseline = row_of(board, board.baseline)
    focus = focus_of(board)
    others = [row for row in board.candidates if row.latency_ms is None]
    listed = (row.id for row in board.candidates)
    details = {row.id: tuple(cards(row)) for row in board.candidates}
    return View(
        name=board.job,
        goal_met=board.goal_met,
        headline=headline(board, baseline, focus),
        why=board.why,
        goal=tuple(limits(board.goal)),
        missed=tuple(_missed(focus)) if focus and not board.goal_met else (),
        focus=focus.id if focus else "",
        figures=tuple(_figures(board, baseline, focus)) if focus else (),
        metric=formats.metric_name(board.goal.metric),
        lines=tuple(_line(row, board) for row in measured(board) + others),
        ledger_header=HEADER,
        ledger=tuple(ledger_rows(board.ledger)) if board.ledger else (),
        saved=tuple(saved_lines(board.ledger)) if board.ledger else (),
        cards=tuple((name, details[name]) for name in listed if details[name]),
        job=tuple(_job(job)),
        environment=tuple(sorted(board.environment.items())),
    )


def row_of(board: Leaderboard, identifier: str | None) -> Candidate | None:
    """The row with that id, or None."""
    return next((row for row in board.candidates if row.id == identifier), None)


def focus_of(board: Leaderboard) -> Candidate | None:
    """The winner, else the candidate that misses the goal by least, else None."""
    if board.winner is not None:
        return row_of(board, board.winner)
    tried = [
        row
        for row in board.candidates
        if not row.reference and row.id != board.baseline and row.status is Status.OK and row.latency_ms is not None
    ]
    return min(tried, key=lambda row: (_shortfall(row), row.id), default=None)


def best_untouched(board: Leaderboard) -> Candidate | None:
    """The fastest row of the untouched model in a runtime other than the baseline's, or None."""
    rows = [
        row
        for row in board.candidates
        if row.reference and row.id != board.baseline and row.status is Status.OK and row.speedup is not None
    ]
    return max(rows, key=lambda row: (row.speedup.ratio if row.speedup else 0.0, row.id), default=None)


def headline(board: Leaderboard, baseline: Candidate | None, focus: Candidate | None) -> str:
    """What was won, in one sentence."""
    if focus is None or baseline is None:
        return "The goal is not met: no candidate could be measured."
    name = formats.metric_name(board.goal.metric)
    subject = focus.id if board.goal_met else f"The goal is not met: the nearest candidate, {focus.id},"
    if focus.speedup is None:
        text = f"{subject} was measured, but not its speed-up"
    else:
        text = f"{subject} is {formats.times(focus.speedup.ratio)} as fast as the model you run today"
        untouched = best_untouched(board)
        if untouched is not None and untouched.speedup is not None:
            own = formats.times(focus.speedup.ratio / untouched.speedup.ratio)
            text += f" ({own} as fast as the untouched model in its best runtime)"
    return f"{text}{_cost_text(focus, board, name)}."


def limits(goal: Goal) -> list[str]:
    """The goal in words, one limit each."""
    named = [
        ("speed-up at least", goal.min_speedup, formats.times),
        ("p50 at most", goal.max_p50, formats.milliseconds),
        ("p99 at most", goal.max_p99, formats.milliseconds),
        ("throughput at least", goal.min_throughput, formats.per_second),
        ("file at most", goal.max_size, formats.size),
    ]
    texts = [f"{words} {formats.as_limit(value, form)}" for words, value, form in named if value is not None]
    return [*texts, f"{formats.metric_name(goal.metric)} drop at most {goal.max_accuracy_drop:g}"]


def _cost_text(row: Candidate, board: Leaderboard, name: str) -> str:
    if row.accuracy is None or row.accuracy.metric is not board.goal.metric:
        return ""
    lost = formats.fraction(row.accuracy.drop)
    if float(lost) == 0:
        return f", at the same {name}"
    return f" and loses {lost} {name}" if row.accuracy.drop > 0 else f" and gains {lost.removeprefix('-')} {name}"


def _shortfall(row: Candidate) -> float:
    verdict = row.details.get("verdict")
    shortfall = verdict.get("shortfall") if isinstance(verdict, dict) else None
    return float(shortfall) if isinstance(shortfall, int | float) else float("inf")


def _missed(row: Candidate) -> list[str]:
    verdict = row.details.get("verdict")
    missed = verdict.get("misses") if isinstance(verdict, dict) else None
    return [str(text) for text in missed] if isinstance(missed, list) else []


def _figures(board: Leaderboard, baseline: Candidate | None, row: Candidate) -> list[Figure]:
    found = []
    if row.speedup is not None:
        interval = f"95% interval {formats.times(row.speedup.ci_low)} to {formats.times(row.speedup.ci_high)}"
        found.append(Figure("Speed-up over today", formats.times(row.speedup.ratio), interval))
        untouched = best_untouched(board)
        if untouched is not None and untouched.speedup is not None:
            ratio = formats.times(row.speedup.ratio / untouched.speedup.ratio)
            found.append(Figure("Beyond a runtime switch", ratio, f"over {untouched.id}, the untouched model"))
    if row.latency_ms is not None:
        before = f"{formats.milliseconds(baseline.latency_ms.p50)} before; " if baseline and baseline.latency_ms else ""
        note = f"{before}p99 {formats.milliseconds(row.latency_ms.p99)}"
        found.append(Figure("End-to-end p50", formats.milliseconds(row.latency_ms.p50), note))
    value = accuracy_of(row, board)
    if value is not None:
        before_value = accuracy_of(baseline, board) if baseline else None
        note = f"{formats.fraction(before_value)} before" if before_value is not None else ""
        found.append(
            Figure(f"{formats.metric_name(board.goal.metric)} on the test split", formats.fraction(value), note)
        )
    if row.size_bytes is not None:
        note = f"{formats.size(baseline.size_bytes)} before" if baseline and baseline.size_bytes else ""
        found.append(Figure("Model file", formats.size(row.size_bytes), note))
    return found


def _line(row: Candidate, board: Leaderboard) -> Line:
    speedup, accuracy = row.speedup, row.accuracy
    return Line(
        id=row.id,
        mark=formats.mark(row, board),
        kind=kind_of(row, board),
        on_front=row.id in board.pareto,
        techniques=", ".join(row.techniques),
        runtime=formats.runtime_name(row.runtime),
        status=str(row.status),
        failed=row.status is not Status.OK,
        unstable=row.stable is False,
        reason=row.reason,
        p50=formats.milliseconds(row.latency_ms.p50) if row.latency_ms else "",
        p99=formats.milliseconds(row.latency_ms.p99) if row.latency_ms else "",
        speedup=formats.times(speedup.ratio) if speedup else "",
        interval=f"{formats.times(speedup.ci_low)} to {formats.times(speedup.ci_high)}"
        if speedup and row.id != board.baseline
        else "",
        accuracy=formats.fraction(accuracy.value) if accuracy else "",
        drop=formats.fraction(accuracy.drop) if accuracy else "",
        throughput=formats.per_second(row.throughput) if row.throughput is not None else "",
        size=formats.size(row.size_bytes) if row.size_bytes is not None else "",
        rss=formats.size(row.peak_rss_bytes) if row.peak_rss_bytes is not None else "",
    )


def _job(job: Job) -> list[tuple[str, str]]:
    source = job.model.factory or job.model.program or job.model.onnx or ""
    target = job.target
    budget = job.budget
    limits_of_budget = {
        "wall clock": budget.max_time,
        "core time": budget.max_core_time,
        "GPU time": budget.max_gpu_time,
    }
    given = [f"{name} {formats.duration(value)}" for name, value in limits_of_budget.items() if value is not None]
    return [
        ("task", str(job.task)),
        ("model", f"{source} with {job.model.weights}" if job.model.weights else source),
        ("train", job.data.train.annotations or str(job.data.train.images)),
        ("test", job.data.test.annotations or str(job.data.test.images)),
        ("device", target.device),
        ("runtimes", ", ".join(formats.runtime_name(runtime) for runtime in target.runtimes)),
        ("input shape", " x ".join(str(side) for side in target.input_shape)),
        ("threads", str(target.threads) if target.threads else "all cores"),
        ("rungs", f"{', '.join(str(rung) for rung in job.ladder.rungs)} ({job.ladder.mode})"),
        ("budget", ", ".join(given) or "no limit"),
        ("benchmark", f"{job.budget.rounds} rounds of {job.budget.round_time:g} s a process"),
        ("calibration", f"{job.budget.calibration_images} images, seed {job.budget.seed}"),
    ]
