"""Whether the ladder climbs to its next rung."""

from components.core.contracts.job import Job, Mode, Rung
from components.core.contracts.leaderboard import Leaderboard
from components.leaderboard.finish import sound
from components.leaderboard.standing import standings


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
