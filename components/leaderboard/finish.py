"""The last word on a board: who meets the goal, the Pareto front, the pick and why."""

import math
from collections import Counter
from typing import Any

from components.core.contracts.job import Goal, Job
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import Status
from components.core.errors import StepError
from components.leaderboard.accounts import accounted
from components.leaderboard.pareto import pareto
from components.leaderboard.standing import Standing, pick, standings
from components.leaderboard.why import remark, why_none, why_winner

VERDICT = "verdict"
"""Key of `Candidate.details` that `finish` writes: ``misses`` (words), ``shortfall`` (number, or None where nothing
was measured) and ``remark`` (the row's reason as the step that made it wrote it)."""


def finish(board: Leaderboard, job: Job, since: float | None = None) -> Leaderboard:
    """The board with `meets_goal` and a reason in every row, `pareto`, `winner`, `goal_met`, `why` and its bill.

    The winner is the fastest end-to-end p50 among the rows that meet the goal; near-ties go to the more accurate, then
    the smaller (`standing.pick`). A yardstick never wins, and neither does a candidate that is not clearly faster than
    a yardstick which reaches the goal on its own. A row whose numbers are not finite has failed. Finishing a finished
    board changes nothing.

    Args:
        board: with every rung's rows.
        job: what was asked for.
        since: Unix time in seconds at which the run began: what was made before costs nothing.

    Raises:
        StepError: the board has no baseline row, or two rows with one id.
    """
    _refuse_twins(board)
    rows = [sound(row) for row in board.candidates]
    board = board.model_copy(update={"goal": job.goal, "candidates": rows})
    standing = standings(board, job.goal)
    winner = pick([each.row for each in standing if not each.misses], job.goal)
    why = why_winner(winner, board, job.goal, standing) if winner else why_none(board, job.goal, standing)
    final = board.model_copy(
        update={
            "goal_met": winner is not None,
            "winner": winner.id if winner else None,
            "why": why,
            "pareto": pareto(rows, job.goal.metric),
            "candidates": [_judged(each, winner, job.goal) for each in standing],
        }
    )
    return accounted(final, job, since)


def sound(row: Candidate) -> Candidate:
    """The row itself; a row that claims to be ok with numbers that cannot be becomes a failed one, with the reason."""
    wrong = _impossible(row)
    if row.status is not Status.OK or not wrong:
        return row
    reason = f"measured numbers are unusable: {', '.join(wrong)}"
    empty = dict.fromkeys(
        ("latency_ms", "model_latency_ms", "speedup", "throughput", "accuracy", "stable", "rounds"), None
    )
    note = _note(row)
    update: dict[str, Any] = {"status": Status.FAILED, "reason": f"{note}; {reason}" if note else reason, **empty}
    return row.model_copy(update={**update, "other_accuracy": {}})


def _impossible(row: Candidate) -> list[str]:
    numbers: dict[str, float | None] = {}
    if row.latency_ms is None:
        return ["no latency"]
    for name, latency in (("latency", row.latency_ms), ("model latency", row.model_latency_ms)):
        if latency is not None:
            numbers |= {f"{name} {key}": value for key, value in latency.model_dump().items()}
    if row.speedup is not None:
        numbers |= {f"speed-up {key}": value for key, value in row.speedup.model_dump().items()}
    positive = [name for name, value in numbers.items() if value is not None and value <= 0]
    numbers["throughput"] = row.throughput
    if row.accuracy is not None:
        numbers |= {str(row.accuracy.metric): row.accuracy.value, "accuracy drop": row.accuracy.drop}
    numbers |= {str(metric): value for metric, value in row.other_accuracy.items()}
    bad = [f"{name} is {value}" for name, value in numbers.items() if value is not None and not math.isfinite(value)]
    return bad + [f"{name} is {numbers[name]:g}" for name in positive]


def _judged(standing: Standing, winner: Candidate | None, goal: Goal) -> Candidate:
    row = standing.row
    shortfall = standing.shortfall if math.isfinite(standing.shortfall) else None
    note = _note(row)
    verdict = {"misses": [miss.reason for miss in standing.misses], "shortfall": shortfall, "remark": note}
    reason = row.reason
    if row.status is Status.OK:
        reason = "; ".join(part for part in (remark(standing, winner, goal), note) if part)
    details = {**row.details, VERDICT: verdict}
    return row.model_copy(update={"meets_goal": not standing.misses, "reason": reason, "details": details})


def _note(row: Candidate) -> str:
    """The reason as it was before any verdict was added to it."""
    verdict = row.details.get(VERDICT)
    return str(verdict["remark"]) if isinstance(verdict, dict) and "remark" in verdict else row.reason


def _refuse_twins(board: Leaderboard) -> None:
    twins = [name for name, count in Counter(row.id for row in board.candidates).items() if count > 1]
    if twins:
        raise StepError(f"the leaderboard has more than one row {', '.join(map(repr, twins))}; ids are unique in a run")
