"""A run as log lines, for a pipe, a file or a CI log."""

import sys
import time
from typing import IO, Any

from components.core.formats import duration
from pipelines.local.state import RunState, State, StepState

_PROGRESS_SECONDS = 5.0


class PlainView:
    """One line when a step starts, ends, or has something new to say (at most one in five seconds a step)."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown: dict[tuple[str, str], State] = {}
        self._last_progress = float("-inf")
        self._rows: set[str] = set()

    def update(self, state: RunState, event: dict[str, Any]) -> None:
        """Writes what changed."""
        now = float(event.get("time", time.time()))
        for step in state.steps:
            key = (step.rung, step.step)
            if step.state is State.WAITING or self._shown.get(key) is step.state:
                continue
            self._shown[key] = step.state
            self._line(state, now, f"{_name(step)}: {_words(step)}")
        if event.get("state") == "progress":
            self._progress(state, str(event.get("step", "")), now)
        if event.get("state") == "noted":
            self._line(state, now, f"rung {event.get('rung', '')}: not climbed: {event.get('message', '')}")
        if event.get("state") == "stopping":
            self._line(state, now, f"stopping: {event.get('message', '')}")
        if event.get("state") == "board":
            self._board(state, now)

    def tick(self, state: RunState) -> None:
        """Nothing moves between two lines."""

    def _progress(self, state: RunState, name: str, now: float) -> None:
        step = next((each for each in state.steps if each.step == name and each.state is State.RUNNING), None)
        if step is None or now - self._last_progress < _PROGRESS_SECONDS:
            return
        self._last_progress = now
        share, eta = step.share(), step.eta(now)
        done = f" {share:.0%}" if share is not None else ""
        left = f", about {duration(eta)} left" if eta is not None else ""
        self._line(state, now, f"{_name(step)}: {step.message}{done}{left}")

    def _board(self, state: RunState, now: float) -> None:
        for row in (state.board or {}).get("candidates", []):
            if row["id"] not in self._rows:
                self._rows.add(row["id"])
                self._line(state, now, f"leaderboard: {row_line(row)}")

    def _line(self, state: RunState, now: float, text: str) -> None:
        print(f"[{max(now - state.started, 0):7.1f} s] {text}", file=self._stream, flush=True)


def row_line(row: dict[str, Any]) -> str:
    """One candidate in one line."""
    if not row.get("latency_ms"):
        return f"{row['id']}: {row['status']}: {row.get('reason') or 'no reason given'}"
    timing = (row.get("details") or {}).get("timing", {})
    batch = f" a batch of {timing['batch']} ({timing['p50_ms_an_image']:.1f} ms an image)" if "batch" in timing else ""
    parts = [f"{row['id']}: p50 {row['latency_ms']['p50']:.1f} ms{batch}"]
    if row.get("speedup"):
        parts.append(f"{row['speedup']['ratio']:.2f}x")
    if row.get("accuracy"):
        parts.append(f"{row['accuracy']['metric']} {row['accuracy']['value']:.3f}")
    return ", ".join(parts)


def _name(step: StepState) -> str:
    return f"{step.rung} / {step.step}" if step.rung else step.step


def _words(step: StepState) -> str:
    match step.state:
        case State.RUNNING:
            return "started"
        case State.DONE:
            return f"done in {duration(step.seconds)}"
        case State.CACHED:
            return "cached"
        case State.SKIPPED:
            return "skipped, not needed"
        case _:
            return f"failed after {duration(step.seconds)}: {step.message}"
