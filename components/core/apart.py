"""Runs a module of ours in a process of its own: native code that crashes or hangs takes only that process along."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_SHOWN = 300
"""Characters of the last words that a reason quotes."""


class DiedError(Exception):
    """The process ended without an answer; the message says how, with its last words."""


def run_apart(module: str, request: dict[str, Any], time_limit: float) -> dict[str, Any]:
    """Runs ``python -m MODULE REQUEST.json ANSWER.json`` and returns the answer.

    Args:
        module: reads the request and writes the answer; both are JSON objects.
        request: what to do.
        time_limit: seconds.

    Raises:
        DiedError: a crash, an exception in the module, or the time limit.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer, log = (Path(folder) / name for name in ("request.json", "answer.json", "log.txt"))
        question.write_text(json.dumps(request))
        code = _run([sys.executable, "-m", module, str(question), str(answer)], log, time_limit)
        if code is None:
            raise DiedError(f"it took longer than {time_limit:g} s and was stopped")
        if code != 0 or not answer.exists():
            raise DiedError(_how(code, log.read_text(errors="replace")))
        result: dict[str, Any] = json.loads(answer.read_text())
        return result


def _run(command: list[str], log: Path, time_limit: float) -> int | None:
    """Exit code of the process, or None when it was stopped at the time limit."""
    with log.open("wb") as stream:
        # In the group of this step, so that it dies with the run.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
        try:
            return process.wait(timeout=time_limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _how(code: int, output: str) -> str:
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    last = f"; its last words: {lines[-1][:_SHOWN]}" if lines else ""
    if code >= 0:
        return f"its process ended with code {code}{last}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"its process crashed with {name}{' (out of memory?)' if name == 'SIGKILL' else ''}{last}"
