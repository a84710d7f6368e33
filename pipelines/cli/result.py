"""What a run shows while it runs and says when it ended."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.local.run import Result, View


@contextmanager
def view(title: str) -> Iterator["View"]:
    """A live picture on a terminal, log lines elsewhere; both on stderr, so that stdout stays the result's."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        from pipelines.cli.live import LiveView

        with LiveView(console, title) as live:
            yield live
    else:
        from pipelines.cli.plain import PlainView

        yield PlainView(sys.stderr)


def print_result(ended: "Result", out: Path, to: IO[str]) -> None:
    """The leaderboard, the winner and why, and where everything is."""
    from rich.console import Console

    from components.core.formats import duration
    from components.core.ledger_words import saved_lines
    from pipelines.cli.live import board_table, ledger_table
    from pipelines.local.run import LOG

    console = Console(file=to, width=None if to.isatty() else 160, highlight=False, soft_wrap=False)
    board, record = ended.board, ended.record
    console.print()
    console.print(board_table(board.model_dump(mode="json")))
    console.print()
    verdict = "Goal met." if board.goal_met else "Goal not met."
    console.print(f"{verdict} Winner: {board.winner or 'none'}. {board.why}", markup=False, soft_wrap=True)
    if board.ledger is not None:
        console.print()
        console.print(ledger_table(board.ledger))
        for line in saved_lines(board.ledger):
            console.print(line, markup=False, soft_wrap=True, style="dim")
        console.print()
    lines = {"report": out / "report.html", "leaderboard": out / "leaderboard.json", "log": out / LOG}
    for name, path in lines.items():
        console.print(f"{name + ':':<13}{path}", markup=False, soft_wrap=True)
    if ended.published_uri:
        console.print(f"{'published:':<13}{ended.published_uri}", markup=False, soft_wrap=True)
    if record.wall_seconds is not None and record.step_seconds is not None and record.overhead is not None:
        console.print(
            f"{'time:':<13}{duration(record.wall_seconds)}, {duration(record.step_seconds)} of it inside the steps "
            f"(the DAG's own share: {record.overhead:.1%})",
            markup=False,
            soft_wrap=True,
        )
