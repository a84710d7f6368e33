"""What is left of a job's budget, whether a rung still fits into it, and what of it a training may use."""

import os
import time

from components.core.contracts.job import Job, Rung
from components.core.contracts.leaderboard import Leaderboard
from components.core.contracts.ledger import Ledger
from components.core.formats import duration
from components.leaderboard.accounts import settled
from components.leaderboard.estimate import at_least

PAUSED = "HASTEN_PAUSED"
"""Environment variable: seconds that the run lay idle between being stopped and being taken up again."""
Amounts = dict[str, float]
"""Seconds by the names of the limits in `Budget`."""
_LIMITS = {"max_time": "wall_seconds", "max_core_time": "core_seconds", "max_gpu_time": "gpu_seconds"}


def limits(job: Job) -> Amounts:
    """The limits that the job sets, in seconds."""
    values = {name: getattr(job.budget, name) for name in _LIMITS}
    return {name: float(value) for name, value in values.items() if value is not None}


def left(board: Leaderboard, job: Job, since: float | None, now: float | None = None) -> Amounts:
    """What is left of each limit, in seconds; below zero where more was spent.

    Args:
        board: with the ledger so far.
        job: its budget.
        since: Unix time in seconds at which the run began; None: wall clock counts as the steps' own time.
        now: Unix time in seconds; default: the present.
    """
    bill = settled(board.ledger or Ledger(), since).total
    spent = {name: float(getattr(bill, field)) for name, field in _LIMITS.items()}
    if since is not None:
        spent["max_time"] = max((time.time() if now is None else now) - since - _paused(), 0.0)
    return {name: limit - spent[name] for name, limit in limits(job).items()}


def too_dear(board: Leaderboard, rung: Rung, job: Job, since: float | None = None, now: float | None = None) -> str:
    """Why `rung` does not fit into the budget any more, in words; nothing if it does."""
    ledger = settled(board.ledger or Ledger(), since)
    estimate = at_least(rung, ledger, job)
    for name, rest in left(board, job, since, now).items():
        needed = getattr(estimate, _LIMITS[name])
        if rest <= needed:
            limit = limits(job)[name]
            training = " and its training" if rung.trains else ""
            return (
                f"budget.{name} {duration(limit)}: {duration(max(rest, 0.0))} left, and {rung} takes at least "
                f"{duration(needed)}{training} ({estimate.basis})"
            )
    return ""


def training_limits(board: Leaderboard, rung: Rung, job: Job, since: float | None) -> Amounts:
    """What a training may use: what is left less what compressing and measuring its model takes; in seconds.

    Empty where the job sets no limit.
    """
    estimate = at_least(rung, settled(board.ledger or Ledger(), since), job)
    rest = left(board, job, since)
    return {name: seconds - getattr(estimate, _LIMITS[name]) for name, seconds in rest.items()}


def _paused() -> float:
    return float(os.environ.get(PAUSED) or 0.0)
