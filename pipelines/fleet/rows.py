"""What became of each model of a fleet, and all of it as a table."""

from enum import StrEnum

from pydantic import Field

from components.core import formats
from components.core.contracts.base import Contract
from components.core.contracts.leaderboard import Leaderboard

REASON = 200
"""Most characters of a reason; the rows of a fleet travel together in one command line."""


class State(StrEnum):
    """Of one model's ladder."""

    MET = "met"
    MISSED = "missed"
    FAILED = "failed"


class Row(Contract):
    """One model."""

    name: str
    state: State
    winner: str = ""
    p50_ms: float | None = Field(default=None, description="of the winner, end to end")
    speedup: float | None = Field(default=None, description="of the winner, over the model as its user runs it")
    drop: float | None = Field(default=None, description="of the winner's accuracy, absolute")
    seconds: float | None = Field(default=None, description="that the model's ladder took")
    reason: str = Field(default="", description="why it failed, or why nothing was shown")
    link: str = Field(default="", description="folder of the results, or the run's page")


class Summary(Contract):
    """A whole fleet."""

    name: str
    rows: list[Row]

    def count(self, state: State) -> int:
        """How many models ended like this."""
        return sum(row.state is state for row in self.rows)


def row_of(name: str, board: Leaderboard, seconds: float | None, link: str) -> Row:
    """The row of a ladder that came to its end."""
    winner = board.row(board.winner) if board.winner else None
    return Row(
        name=name,
        state=State.MET if board.goal_met else State.MISSED,
        winner=winner.id if winner else "",
        p50_ms=winner.latency_ms.p50 if winner and winner.latency_ms else None,
        speedup=winner.speedup.ratio if winner and winner.speedup else None,
        drop=winner.accuracy.drop if winner and winner.accuracy else None,
        seconds=seconds,
        reason="" if board.goal_met else shortened(board.why),
        link=link,
    )


def failed(name: str, reason: str, link: str = "", seconds: float | None = None) -> Row:
    """The row of a ladder that broke off."""
    return Row(name=name, state=State.FAILED, reason=shortened(reason), link=link, seconds=seconds)


def shortened(reason: str) -> str:
    """One line of at most `REASON` characters."""
    line = formats.plain(reason)
    return line if len(line) <= REASON else f"{line[: REASON - 3]}..."


def cells(row: Row) -> list[str]:
    """The row as it is shown: name, state, winner, p50, speed-up, drop, time, reason."""
    return [
        row.name,
        str(row.state),
        row.winner or "-",
        formats.milliseconds(row.p50_ms) if row.p50_ms is not None else "-",
        formats.times(row.speedup) if row.speedup is not None else "-",
        f"{row.drop:+.3f}" if row.drop is not None else "-",
        f"{row.seconds:.0f} s" if row.seconds is not None else "-",
        row.reason,
    ]


HEADER = ["model", "goal", "winner", "p50", "speed-up", "drop", "took", "why"]


def verdict(summary: Summary) -> str:
    """One line."""
    met, missed, broken = (summary.count(state) for state in State)
    return f"{summary.name}: {met} of {len(summary.rows)} models meet their goal, {missed} do not, {broken} failed."


def markdown(summary: Summary) -> str:
    """The table as Markdown."""
    lines = [f"# Fleet {formats.markdown(summary.name)}", "", verdict(summary), ""]
    lines += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    lines += ["| " + " | ".join(formats.markdown(cell) for cell in cells(row)) + " |" for row in summary.rows]
    return "\n".join(lines) + "\n"
