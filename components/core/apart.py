"""Runs a module of ours in a process of its own: native code that crashes, hangs or eats memory takes only it along."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

_SHOWN = 300
"""Characters of the last words that a reason quotes."""
_POLL = 0.05
"""Seconds between two looks at the memory."""


class End(StrEnum):
    """How a process ended that gave no answer."""

    CRASHED = "crashed"
    EXITED = "exited"
    TIME = "time"
    MEMORY = "memory"


class DiedError(Exception):
    """The process ended without an answer; the message says how, with its last words."""

    def __init__(self, message: str, end: End = End.EXITED, partial: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.end = end
        self.partial = partial or {}
        """What the module had answered so far; it may write its answer more than once."""


def run_apart(
    module: str, request: dict[str, Any], time_limit: float, memory_limit: float | None = None
) -> dict[str, Any]:
    """Runs ``python -m MODULE REQUEST.json ANSWER.json`` and returns the answer.

    Args:
        module: reads the request and writes the answer; both are JSON objects.
        request: what to do.
        time_limit: seconds.
        memory_limit: bytes of memory that the process and its children may have resident. It is watched from here:
            a limit on the address space (RLIMIT_AS) would stop CUDA libraries, which reserve far more than they use.

    Raises:
        DiedError: a crash, an exception in the module, or one of the limits.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer, log = (Path(folder) / name for name in ("request.json", "answer.json", "log.txt"))
        question.write_text(json.dumps(request))
        command = [sys.executable, "-m", module, str(question), str(answer)]
        code = _run(command, log, time_limit, memory_limit)
        words = log.read_text(errors="replace")
        if isinstance(code, End):
            limits = {End.TIME: f"took longer than {time_limit:g} s", End.MEMORY: _too_much(memory_limit)}
            raise DiedError(f"it {limits[code]} and was stopped", code, _read(answer))
        if code != 0 or not answer.exists():
            raise DiedError(_how(code, words), End.EXITED if code >= 0 else End.CRASHED, _read(answer))
        result: dict[str, Any] = json.loads(answer.read_text())
        return result


def _run(command: list[str], log: Path, time_limit: float, memory_limit: float | None) -> int | End:
    """Exit code of the process, or the limit at which it was stopped."""
    with log.open("wb") as stream:
        # In the group of this step, so that it dies with the run.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
        try:
            if memory_limit is None:
                return process.wait(timeout=time_limit)
            return _watched(process, time_limit, memory_limit)
        except subprocess.TimeoutExpired:
            return End.TIME
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _watched(process: "subprocess.Popen[bytes]", time_limit: float, memory_limit: float) -> int | End:
    import psutil

    deadline = time.monotonic() + time_limit
    while (left := deadline - time.monotonic()) > 0:
        try:
            return process.wait(timeout=min(_POLL, left))
        except subprocess.TimeoutExpired:
            pass
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            resident = sum(member.memory_info().rss for member in family)
        except psutil.Error:  # one of them has just ended
            continue
        if resident > memory_limit:
            for member in family[1:]:
                member.kill()
            return End.MEMORY
    return End.TIME


def _too_much(memory_limit: float | None) -> str:
    return f"used more than {(memory_limit or 0) / 2**20:,.0f} MiB of memory"


def _read(answer: Path) -> dict[str, Any]:
    """What is there of an answer; nothing where the process died while writing it."""
    try:
        result: dict[str, Any] = json.loads(answer.read_text())
    except (OSError, ValueError):
        return {}
    return result


def _how(code: int, output: str) -> str:
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    last = f"; its last words: {lines[-1][:_SHOWN]}" if lines else ""
    if code >= 0:
        return f"its process ended with code {code}{last}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"its process crashed with {name}{' (out of memory?)' if name == 'SIGKILL' else ''}{last}"
