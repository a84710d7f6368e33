"""A run as a live picture in the terminal: the DAG with its states above, the leaderboard as it grows below."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from components.core.contracts.ledger import Ledger
from components.core.formats import duration
from components.core.ledger_words import HEADER, NUMERIC, TOTAL, ledger_rows
from pipelines.local.state import RunState, State, StepState

_MARKS = {
    State.WAITING: ("·", "dim"),
    State.DONE: ("✓", "green"),
    State.CACHED: ("✓", "cyan"),
    State.SKIPPED: ("-", "dim"),
    State.FAILED: ("✗", "bold red"),
}


class LiveView:
    """Redraws a few times a second; use it as a context manager."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._spinner = Spinner("dots", style="yellow")
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._state: RunState | None = None

    def __enter__(self) -> "LiveView":
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._state and self._state.finished:  # the board is printed as the result
            self._state.board = None
            self._live.update(self.picture(self._state, time.time()))
        self._live.__exit__(*error)

    def update(self, state: RunState, event: dict[str, Any]) -> None:
        """The next tick shows it."""

    def tick(self, state: RunState) -> None:
        """Draws the present state."""
        self._state = state
        self._live.update(self.picture(state, time.time()))

    def picture(self, state: RunState, now: float) -> RenderableType:
        """Everything that is shown."""
        parts: list[RenderableType] = [
            Text.assemble((self._title, "bold"), (f"  {duration(now - state.started)}", "dim"))
        ]
        parts.append(self._steps(state, now))
        if state.board:
            parts.append(board_table(state.board))
        return Group(*parts)

    def _steps(self, state: RunState, now: float) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(no_wrap=True, min_width=max(len(step.step) for step in state.steps) + 2)
        table.add_column(no_wrap=True, min_width=8)
        table.add_column(justify="right", no_wrap=True, min_width=8)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        closed = {step.rung for step in state.steps if step.step == "decide" and not _is_open(state, step.rung)}
        for step in state.steps:
            if step.step == "decide":
                table.add_row(*_rung_row(state, step))
            elif step.rung not in closed:
                table.add_row(*self._step_row(step, now))
        return table

    def _step_row(self, step: StepState, now: float) -> list[RenderableType]:
        indent = "  " if step.rung else ""
        if step.state is State.RUNNING:
            return [
                self._spinner,
                Text(f"{indent}{step.step}", style="bold"),
                Text("running", style="yellow"),
                Text(duration(step.elapsed(now))),
                _progress(step, now),
            ]
        mark, style = _MARKS[step.state]
        took = duration(step.seconds) if step.state in (State.DONE, State.FAILED) else ""
        message = Text(step.message, style="red") if step.state is State.FAILED else Text("")
        return [
            Text(mark, style=style),
            Text(f"{indent}{step.step}"),
            Text(str(step.state), style=style),
            took,
            message,
        ]


def _is_open(state: RunState, rung: str) -> bool:
    """Whether a rung's steps are worth their lines: not before it is climbed, and not if it was not needed."""
    inner = [step.state for step in state.steps if step.rung == rung and step.step != "decide"]
    return any(each not in (State.WAITING, State.SKIPPED) for each in inner)


def _rung_row(state: RunState, decide: StepState) -> list[RenderableType]:
    """The line above a rung's steps says whether it is climbed; the decision itself takes no time worth showing."""
    inner = [step for step in state.steps if step.rung == decide.rung and step is not decide]
    if decide.state in (State.WAITING, State.RUNNING):
        words, style = "if the goal is not met by then", "dim"
    elif decide.state is State.SKIPPED or all(step.state is State.SKIPPED for step in inner):
        words, style = decide.note or "not needed", "dim"
    else:
        words, style = "", "bold"
    return ["", Text(f"rung {decide.rung}", style=style), "", "", Text(words, style="dim")]


def _progress(step: StepState, now: float) -> RenderableType:
    share = step.share()
    if share is None:
        return Text(step.message, style="dim", overflow="ellipsis", no_wrap=True)
    eta = step.eta(now)
    left = f"{duration(eta)} left" if eta is not None else ""
    line = Table.grid(padding=(0, 1))
    for _ in range(4):
        line.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(total=1.0, completed=share, width=16)
    line.add_row(bar, f"{share:4.0%}", left, Text(step.message, style="dim"))
    return line


def board_table(board: Mapping[str, Any]) -> RenderableType:
    """The leaderboard, fastest first, then the rows without numbers and their reasons.

    Args:
        board: the Leaderboard as JSON data.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    metric = board.get("goal", {}).get("metric", "accuracy")
    for title, right in [("", 0), ("candidate", 0), ("p50", 1), ("speed-up", 1), (metric, 1), ("drop", 1), ("size", 1)]:
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    rows = board.get("candidates", [])
    timed = [row for row in rows if row.get("latency_ms")]
    for row in sorted(timed, key=lambda row: float(row["latency_ms"]["p50"])):
        table.add_row(*_candidate_row(row, board))
    reasons = [
        Text(f"   {row['id']}: {row['status']}: {row.get('reason') or 'no reason given'}", style="dim")
        for row in rows
        if not row.get("latency_ms")
    ]
    return Group(table, *reasons)


def ledger_table(ledger: Ledger) -> RenderableType:
    """What each rung cost."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    for title in HEADER:
        table.add_column(title, justify="right" if title in NUMERIC else "left", no_wrap=title in NUMERIC)
    for row in ledger_rows(ledger):
        table.add_row(*(Text(cell, style="bold" if row[0] == TOTAL else "") for cell in row))
    return table


def _candidate_row(row: Mapping[str, Any], board: Mapping[str, Any]) -> list[RenderableType]:
    latency, speedup, accuracy = row.get("latency_ms"), row.get("speedup"), row.get("accuracy")
    if row["id"] == board.get("winner"):
        mark, style = "★", "bold green"
    elif row["id"] == board.get("baseline"):
        mark, style = "=", "bold"
    else:
        mark, style = ("✓", "green") if row.get("meets_goal") else ("", "")
    size = row.get("size_bytes")
    cells = [
        mark,
        row["id"],
        f"{latency['p50']:.1f} ms" if latency else "",
        f"{speedup['ratio']:.2f}x [{speedup['ci_low']:.2f}, {speedup['ci_high']:.2f}]" if speedup else "",
        f"{accuracy['value']:.3f}" if accuracy else "",
        f"{accuracy['drop']:+.3f}" if accuracy else "",
        f"{size / 1e6:.1f} MB" if size is not None else "",
    ]
    return [Text(cell, style=style) for cell in cells]
