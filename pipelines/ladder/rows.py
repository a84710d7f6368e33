"""Rows of the board for which nothing was measured."""

from pathlib import Path
from typing import Any

from components.core.contracts.job import Job
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import Status
from components.core.costs import charged
from components.leaderboard.accounts import BUDGET


def with_untrained(board: str, job: str, rung: str, status: str, reason: str, made: Path | None = None) -> str:
    """The board with the row of a rung that trained nothing; all of it JSON. Done twice, it has the row once.

    Args:
        board: the Leaderboard so far.
        job: the Job.
        rung: that trained nothing.
        status: `skipped` or `failed`.
        reason: why.
        made: the folder that the rung left, with what it cost all the same.
    """
    known = Leaderboard.model_validate_json(board)
    if made is not None:
        known = charged(known, rung, [made])
    return _with_row(known, job, rung, Status(status), reason or f"{rung} trained nothing")


def with_left_out(board: str, job: str, rung: str, reason: str) -> str:
    """The board with the row of a rung that the budget does not allow."""
    known = Leaderboard.model_validate_json(board)
    return _with_row(known, job, rung, Status.SKIPPED, reason, {BUDGET: reason})


def _with_row(
    known: Leaderboard, job: str, rung: str, status: Status, reason: str, details: dict[str, Any] | None = None
) -> str:
    wanted = Job.model_validate_json(job)
    row = Candidate(
        id=rung,
        rung=rung,
        techniques=[rung],
        runtime=wanted.target.runtimes[0],
        status=status,
        reason=reason,
        details=details or {},
    )
    rows = [*(each for each in known.candidates if each.id != rung), row]
    return known.model_copy(update={"candidates": rows}).model_dump_json()
