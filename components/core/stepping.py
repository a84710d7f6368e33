"""What surrounds a step: its clock, its progress, its one clear line when it fails.

A component's body is ``with step("surgery"): run_surgery(...)``; logic modules call `progress` from anywhere below it.
When the environment names a file in ``HASTEN_EVENTS``, both append JSON lines to it for the live view; without it
`progress` only reaches a listener that a command-line step has set. Nothing here knows of KFP.
"""

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core.costs import Meter
from components.core.errors import StepError, UserError

EVENTS = "HASTEN_EVENTS"
"""Environment variable: file that events are appended to."""
STEP = "HASTEN_STEP"
"""Environment variable: the step that runs, so that the processes a step starts report under its name."""
LIFELINE = "HASTEN_LIFELINE"
"""Environment variable: ``stdin`` when the end of standard input means that the run was killed."""

EXIT_INTERNAL = 1
EXIT_BAD_INPUT = 2

Progress = Callable[[str, float | None, float | None], None]
_listener: Progress | None = None
_last: tuple[str, float] = ("", 0.0)
_MIN_INTERVAL = 0.1  # seconds between two events of a loop


def announce(state: str, message: str = "", **fields: Any) -> None:
    """Appends an event to the run's file, if there is a run: `state`, `message` and whatever else it is about."""
    path = os.environ.get(EVENTS)
    if not path:
        return
    event = {"time": time.time(), "step": os.environ.get(STEP, ""), "state": state, "message": message, **fields}
    line = json.dumps(event, default=str) + "\n"
    try:
        # One write on an O_APPEND descriptor, so that the lines of two processes never mix.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError:
        pass  # the work matters more than the news of it (disk full, folder removed)


def progress(message: str, done: float | None = None, total: float | None = None) -> None:
    """Says what the running step is doing.

    Call it as often as convenient: repeats of one message within 0.1 s are dropped.

    Args:
        message: what is being done now, for instance ``timing int8-openvino``.
        done: how much of it is finished, in any unit; with `total` it becomes a bar with an ETA.
        total: how much there is.
    """
    global _last
    now = time.monotonic()
    finished = done is not None and total is not None and done >= total
    if _last[0] == message and now - _last[1] < _MIN_INTERVAL and not finished:
        return
    _last = (message, now)
    if _listener is not None:
        _listener(message, done, total)
    announce("progress", message, done=done, total=total)


def announce_board(board: Any) -> None:
    """Shows a Leaderboard (the contract) in the live view, for instance after each candidate that was measured."""
    announce("board", board=board.model_dump(mode="json"))


@contextmanager
def listening(listener: Progress) -> Iterator[None]:
    """Sends what `progress` says to `listener(message, done, total)` for the length of the block."""
    global _listener
    previous, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = previous


def is_disk_full(error: BaseException) -> bool:
    """Whether the error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def one_line(error: BaseException) -> str:
    """An error as one line: its own words for ours, ``Type: words`` for others, the disk named when it is full."""
    text = " ".join(str(error).split())
    if is_disk_full(error):
        filename = getattr(error, "filename", None)
        where = f" while writing {filename}" if filename else ""
        return f"no space left on the disk{where}; free some or put the output elsewhere (--out, --cache)"
    if isinstance(error, UserError | StepError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def step(name: str, rung: str = "") -> Iterator[Meter]:
    """Runs the block as the step `name`: events at start and end, and errors as one line and an exit code.

    Args:
        name: the step, as in the DAG: ``fetch``, ``export``, ``surgery``...
        rung: the rung that it works for, where the step knows.

    Yields:
        What it costs so far; a step that makes a folder keeps that there (`Meter.keep`).

    Raises:
        SystemExit: code 2 for a `UserError`, 1 for a `StepError` and a full disk; the line is on stderr.
        Exception: anything else passes through with its traceback (which a run keeps in its log).
    """
    die_with_the_run()
    outer = os.environ.get(STEP)
    os.environ[STEP] = name
    started, meter = time.monotonic(), Meter(name)
    announce("started", rung=rung)
    try:
        yield meter
    except BaseException as error:
        kind = _kind(error)
        seconds = time.monotonic() - started
        cores = meter.cost().core_seconds
        announce("failed", one_line(error), rung=rung, kind=kind, seconds=seconds, core_seconds=cores)
        if kind in ("user", "step"):
            print(f"{name}: {one_line(error)}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_BAD_INPUT if kind == "user" else EXIT_INTERNAL) from None
        raise
    else:
        announce("done", rung=rung, seconds=time.monotonic() - started, core_seconds=meter.cost().core_seconds)
    finally:
        if outer is None:
            os.environ.pop(STEP, None)
        else:
            os.environ[STEP] = outer


def _kind(error: BaseException) -> str:
    if isinstance(error, UserError):
        return "user"
    if isinstance(error, StepError):
        return "step"
    if is_disk_full(error):
        return "step"
    return "internal"


def die_with_the_run() -> None:
    """Ties this process's group to the run: standard input ends when `hasten run` dies, even of SIGKILL.

    Without it a killed run would leave its step working on, beside the run that resumes it. A pipe and not
    PR_SET_PDEATHSIG, because KFP puts a shell between the runner and the step.
    """
    if os.environ.get(LIFELINE) != "stdin" or not _is_pipe(0):
        return
    if any(thread.name == LIFELINE for thread in threading.enumerate()):
        return

    def wait_for_the_end() -> None:
        try:
            while os.read(0, 1):
                pass
        except OSError:
            return
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait_for_the_end, name=LIFELINE, daemon=True).start()


def _is_pipe(descriptor: int) -> bool:
    try:
        return Path(f"/proc/self/fd/{descriptor}").is_fifo()
    except OSError:
        return False
