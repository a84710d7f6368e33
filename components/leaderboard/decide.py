"""Whether the ladder climbs to its next rung."""

from typing import NamedTuple

from components.core.contracts.job import Job, Mode, Rung
from components.core.contracts.leaderboard import Leaderboard
from components.leaderboard.budget import too_dear
from components.leaderboard.finish import sound
from components.leaderboard.standing import standings


class Decision(NamedTuple):
    """About one rung."""

    climb: bool
    reason: str = ""
    """Why the budget does not allow a rung that is needed; empty in every other case."""


def decided(
    board: Leaderboard, rung: Rung | str, job: Job, since: float | None = None, now: float | None = None
) -> Decision:
    """`should_climb`, and whether the budget still allows it.

    Args:
        board: so far, with what it cost.
        rung: in question.
        job: with the budget.
        since: Unix time in seconds at which the run began; None: only the steps' own time counts.
        now: Unix time in seconds; default: the present.

    Raises:
        StepError: the board has no baseline row.
    """
    if not should_climb(board, rung, job):
        return Decision(climb=False)
    reason = too_dear(board, Rung(rung), job, since, now)
    return Decision(climb=not reason, reason=reason)


def should_climb(board: Leaderboard, rung: Rung | str, job: Job) -> bool:
    """Whether `rung` is to be climbed, given what `board` holds so far.

    It is when the job names it and either the mode is exhaustive or no candidate meets the goal yet. A candidate whose
    timing did not settle counts (it is flagged in the report); a yardstick does not.

    Raises:
        StepError: the board has no baseline row.
    """
    if rung not in [str(each) for each in job.ladder.rungs]:
        return False
    if job.ladder.mode is Mode.EXHAUSTIVE:
        return True
    board = board.model_copy(update={"candidates": [sound(row) for row in board.candidates]})
    return all(standing.misses for standing in standings(board, job.goal))
