"""The parent's side of a worker: starts it, asks, waits no longer than agreed, and says how it died."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_LAST_WORDS = 200
_CLOSE_SECONDS = 5.0
_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND", "OMP_PLACES")


class WorkerError(Exception):
    """The worker could not do what it was asked; the message is a reason for a person.

    Args:
        reason: one line.
        user: the user's input is at fault.
    """

    def __init__(self, reason: str, *, user: bool = False) -> None:
        super().__init__(reason)
        self.user = user


class WorkerProcess:
    """A worker and the pipe to it.

    Args:
        log: file for what the worker prints.
        threads: CPU threads that the libraries in the worker may use.
        passive: OpenMP threads sleep instead of spin while they wait for one another; see `worker_environment`.
        module: what is run; it answers as `components.benchmark.worker` does.
    """

    def __init__(self, log: Path, threads: int, *, passive: bool, module: str = "components.benchmark.worker") -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._unread = b""
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=worker_environment(threads, passive=passive),
                bufsize=0,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, command: str, doing: str, **fields: Any) -> None:
        """Gives a command without waiting for its answer; `receive` gets it.

        Raises:
            WorkerError: the process is dead.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": command} | fields).encode() + b"\n")
        except OSError:
            raise WorkerError(f"{self._how_it_died()} while {doing}") from None

    def receive(self, doing: str, silence: float) -> dict[str, Any]:
        """The answer to the last command.

        Args:
            doing: what it was asked, for the reason.
            silence: seconds without a word after which the worker is killed.

        Raises:
            WorkerError: it reported an error, died or kept silent.
        """
        while True:
            message = json.loads(self._line(doing, silence))
            if "ok" in message:
                answer: dict[str, Any] = message["ok"]
                return answer
            if "error" in message:
                raise WorkerError(str(message["error"]), user=message["kind"] == "user")

    def ask(self, command: str, doing: str, silence: float, **fields: Any) -> dict[str, Any]:
        """`send` and `receive`."""
        self.send(command, doing, **fields)
        return self.receive(doing, silence)

    def close(self) -> None:
        """Ends the process, by force where asking does not help."""
        if self._process.poll() is None:
            try:
                self.send("quit", "being closed")
                self._process.wait(_CLOSE_SECONDS)
            except (WorkerError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self, doing: str, silence: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + silence
        while b"\n" not in self._unread:
            ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                self._process.kill()
                raise WorkerError(f"timed out: no answer within {silence:g} s while {doing}")
            received = os.read(pipe, 1 << 16)
            if not received:
                raise WorkerError(f"{self._how_it_died()} while {doing}")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _how_it_died(self) -> str:
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "closed its output and hung"
        words = self._last_words()
        said = f": {words}" if words else ""
        if code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"crashed with {name}{hint}{said}"
        return f"exited with code {code}{said}"

    def _last_words(self) -> str:
        """The last line on standard error, where the reason usually is."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " ".join(lines[-1].split())[:_LAST_WORDS] if lines else ""


def worker_environment(threads: int, *, passive: bool) -> dict[str, str]:
    """Environment of a worker.

    Args:
        threads: for OpenMP and MKL, on which torch runs.
        passive: OpenMP threads sleep while they wait (``OMP_WAIT_POLICY=PASSIVE``). Spinning is a little faster on an
            idle machine and many times slower on a busy one.
    """
    environment = {name: value for name, value in os.environ.items() if name not in (*_OPENMP, "HASTEN_EVENTS")}
    environment |= {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_MODULE_LOADING": "LAZY",
        # The worker finds the modules that this process finds, the user's model factory among them.
        "PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path),
        "PYTHONUNBUFFERED": "1",
    }
    if passive:
        environment |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    return environment
