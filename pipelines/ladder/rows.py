"""Rows of the board for which nothing was measured."""

from components.core.contracts.job import Job
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import Status


def with_untrained(board: str, job: str, rung: str, status: str, reason: str) -> str:
    """The board with the row of a rung that trained nothing; all of it JSON. Done twice, it has the row once."""
    known, wanted = Leaderboard.model_validate_json(board), Job.model_validate_json(job)
    row = Candidate(
        id=rung,
        rung=rung,
        techniques=[rung],
        runtime=wanted.target.runtimes[0],
        status=Status(status),
        reason=reason or f"{rung} trained nothing",
    )
    rows = [*(each for each in known.candidates if each.id != rung), row]
    return known.model_copy(update={"candidates": rows}).model_dump_json()
