"""Where the rows of a board stand: which of them count towards the goal, and which of those wins."""

import math
from dataclasses import dataclass

from components.core.contracts.job import Goal
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import Status
from components.core.errors import StepError
from components.core.formats import times
from components.leaderboard.goal import Miss, accuracy_of, misses, numeric_misses


@dataclass(frozen=True)
class Standing:
    """One row and what it still misses; nothing missed means that it counts towards the goal."""

    row: Candidate
    misses: tuple[Miss, ...]

    @property
    def shortfall(self) -> float:
        """How far it is from the goal: the missing parts of what was wanted, added up."""
        return sum(miss.shortfall for miss in self.misses)


def baseline_of(board: Leaderboard) -> Candidate:
    """The row that the speed-ups are over.

    Raises:
        StepError: the board has no such row.
    """
    try:
        return board.row(board.baseline)
    except KeyError:
        present = ", ".join(row.id for row in board.candidates) or "no rows"
        raise StepError(f"the leaderboard has no baseline row {board.baseline!r} (it has {present})") from None


def standings(board: Leaderboard, goal: Goal) -> list[Standing]:
    """Every row with what it misses, in the order of the board.

    Beyond `misses`, a candidate must be faster than each yardstick that reaches the goal's numbers on its own, and by
    more than the intervals leave open: else the runtime switch did the work, and it is not sold as a faster model.
    """
    baseline = baseline_of(board)
    enough = reaching_yardsticks(board, goal)
    found = []
    for row in board.candidates:
        missed = misses(row, baseline, goal)
        if not missed:
            missed = [
                Miss(
                    f"not clearly faster than {yardstick.id}, the untouched model, which reaches the goal by itself"
                    f"{_against(row, yardstick)}",
                    0.0,
                )
                for yardstick in enough
                if not faster(row, yardstick)
            ]
        found.append(Standing(row, tuple(missed)))
    return found


def reaching_yardsticks(board: Leaderboard, goal: Goal) -> list[Candidate]:
    """Rows of the untouched model, the baseline apart, whose numbers alone reach the goal; the fastest first."""
    baseline = baseline_of(board)
    found = [row for row in untouched(board) if not numeric_misses(row, baseline, goal)]
    return sorted(found, key=_by_speedup)


def untouched(board: Leaderboard) -> list[Candidate]:
    """The rows of the untouched model in runtimes other than the baseline's."""
    return [row for row in board.candidates if row.reference and row.id != board.baseline]


def faster(row: Candidate, other: Candidate) -> bool:
    """Whether `row` is clearly faster than `other`: its speed-up interval lies above the other's.

    Two rows may have been timed by different rungs at different times; each speed-up is over the baseline of its own
    rounds, so that only these compare well. Without them the p50 decides.
    """
    if row.speedup is None or other.speedup is None:
        return _p50(row) < _p50(other)
    return row.speedup.ci_low > other.speedup.ci_high


def pick(contenders: list[Candidate], goal: Goal) -> Candidate | None:
    """The winner among rows that meet the goal: the fastest end-to-end p50; among near-ties the most accurate.

    A near-tie of the fastest is a row that it is not clearly `faster` than. Equally accurate near-ties: the smaller
    file, then the faster, then the id, so that the order of the rows never decides.
    """
    if not contenders:
        return None
    fastest = min(contenders, key=lambda row: (_p50(row), row.id))
    slowest_tie = max(_p50(row) for row in contenders if row is fastest or not faster(fastest, row))
    # By p50 and not by interval alone: a row between the fastest and a near-tie is a near-tie itself, whatever the
    # width of its own interval; else a row could win that another beats in both latency and accuracy.
    ties = [row for row in contenders if _p50(row) <= slowest_tie]
    return min(ties, key=lambda row: (-_accuracy(row, goal), _size(row), _p50(row), row.id))


def best_untouched(board: Leaderboard) -> Candidate | None:
    """The fastest row of the untouched model in a runtime of its own, or None where none was measured."""
    rows = [row for row in untouched(board) if row.status is Status.OK and row.latency_ms is not None]
    return min(rows, key=_by_speedup, default=None)


def _by_speedup(row: Candidate) -> tuple[float, float, str]:
    return -(row.speedup.ratio if row.speedup else 0.0), _p50(row), row.id


def _p50(row: Candidate) -> float:
    return row.latency_ms.p50 if row.latency_ms is not None else math.inf


def _accuracy(row: Candidate, goal: Goal) -> float:
    value = accuracy_of(row, goal.metric)
    return value if value is not None else -math.inf


def _size(row: Candidate) -> int | float:
    return row.size_bytes if row.size_bytes is not None else math.inf


def _against(row: Candidate, other: Candidate) -> str:
    if row.speedup is None or other.speedup is None:
        return ""
    mine, theirs = row.speedup, other.speedup
    return (
        f" ({times(mine.ratio)}, {times(mine.ci_low)} to {times(mine.ci_high)}, against "
        f"{times(theirs.ratio)}, {times(theirs.ci_low)} to {times(theirs.ci_high)})"
    )
