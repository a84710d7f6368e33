"""A pipeline in a child process, its events shown as they come, its results put into one folder."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any, Generic, Protocol, TypeVar

from components.core.contracts.job import Job, Rung
from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import StepError, UserError
from components.core.stepping import EVENTS, LIFELINE, STEP
from components.core.storage import write_bytes_atomic, write_json_atomic
from components.leaderboard.budget import PAUSED
from pipelines.code_version import code_version
from pipelines.local.record import EVENTS as EVENTS_FILE
from pipelines.local.record import HIDDEN, RunRecord, Stage, StepRecord, locked, next_record
from pipelines.local.state import Failure, RunState, State, StepState, planned

LOG = "run.log"
RESULTS = ("report.md", "report.html", "leaderboard.json")
EXIT_MET, EXIT_INTERNAL, EXIT_BAD_INPUT, EXIT_NOT_MET = 0, 1, 2, 3
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0
_CHECKPOINT_SECONDS = 120.0
"""That a training has to finish its step and write a checkpoint after Ctrl-C."""
_IN_A_HURRY = 2
"""Ctrl-C so often, and nobody is waited for any more."""
_FULL_DISK_BYTES = 1 << 20
_ERROR_LINE = re.compile(r"^\s*(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*")


class View(Protocol):
    """Shows a run; `pipelines.cli.live` and `pipelines.cli.plain` are two."""

    def update(self, state: RunState, event: dict[str, Any]) -> None:
        """Called for every event, after the state took it in."""

    def tick(self, state: RunState) -> None:
        """Called ten times a second."""


@dataclass(frozen=True)
class Options:
    """How to run a job."""

    out: Path
    cache: Path
    command: str = ""
    fresh: bool = False
    """Whether to do every step again, whatever the cache holds."""
    resume: bool = False
    """Whether the folder's last run is taken up even if it finished, so that its measurements count."""
    job_folder: Path | None = None
    """Modules beside the job file can be its factory."""
    began: float | None = None
    """Unix time in seconds that the wall time is counted from; default: when the run is called."""


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    board: Leaderboard
    published_uri: str
    record: RunRecord

    @property
    def exit_code(self) -> int:
        """0 if the goal is met, else 3."""
        return EXIT_MET if self.board.goal_met else EXIT_NOT_MET


class InterruptedRunError(Exception):
    """The user, or the system, asked the run to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class Ended(Protocol):
    """How a run of any pipeline ended."""

    @property
    def exit_code(self) -> int:
        """Of the command."""


EndedT = TypeVar("EndedT", bound=Ended)


@dataclass(frozen=True)
class Dag(Generic[EndedT]):
    """A pipeline as it is run on this machine."""

    pipeline: str
    """Its name, and the folder of `pipelines` that it is in."""
    steps: list[StepState]
    """What it would do if it did everything, in order."""
    arguments: dict[str, Any]
    """Besides job, command, code_version and run_id."""
    take: Callable[[dict[str, str], Path, RunRecord], EndedT]
    """Puts its outputs into the run's folder."""


def run_ladder(job: Job, options: Options, view: View) -> Result:
    """Runs the ladder on this machine and puts leaderboard.json, report.md and report.html into `options.out`.

    Raises:
        Exception: see `run_dag`.
    """
    steps = planned([str(rung) for rung in job.ladder.rungs], job.publish is not None)
    return run_dag(Dag("ladder", steps, {"mode": "", "rungs": ""}, _take_results), job, options, view)


def run_dag(dag: Dag[EndedT], job: Job, options: Options, view: View) -> EndedT:
    """Runs a pipeline on this machine and puts its results into `options.out`.

    A run that was killed, stopped or failed is taken up again where it ended: finished steps come from the cache, and
    the folder's run.json keeps the run's identity, so that measurements already taken count.

    Raises:
        UserError: the job's input cannot be used.
        StepError: a step could not do its work.
        InterruptedRunError: SIGINT or SIGTERM came.
    """
    began = options.began or time.time()
    with locked(options.out):
        record = next_record(options.out, options.resume)
        record.job, record.command, record.version = job.name, options.command, _version()
        record.started = datetime.now(UTC).isoformat(timespec="seconds")
        record.write(options.out)
        state = RunState(dag.steps, began)
        try:
            outputs = _run_child(dag, job, options, record, state, view)
            result = dag.take(outputs, options.out, record)
            record.stage, record.exit_code = Stage.FINISHED, result.exit_code
            return result
        except InterruptedRunError:
            record.stage = Stage.STOPPED
            raise
        except (UserError, StepError) as error:
            record.stage, record.reason = Stage.FAILED, " ".join(str(error).split())
            record.exit_code = EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_INTERNAL
            raise
        finally:
            _account(record, state, time.time() - began)
            with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
                record.write(options.out)


def _account(record: RunRecord, state: RunState, wall: float) -> None:
    record.steps = [
        StepRecord(
            step=step.step,
            rung=step.rung,
            state=str(step.state),
            seconds=round(step.seconds, 3),
            core_seconds=round(step.core_seconds, 3),
        )
        for step in state.steps
    ]
    record.wall_seconds, record.step_seconds = round(wall, 3), round(state.step_seconds, 3)
    record.overhead = round(max(wall - state.step_seconds, 0.0) / wall, 4) if wall > 0 else None


def _run_child(
    dag: Dag[EndedT], job: Job, options: Options, record: RunRecord, state: RunState, view: View
) -> dict[str, str]:
    hidden = options.out / HIDDEN
    outputs, events, request = hidden / "outputs.json", hidden / EVENTS_FILE, hidden / "request.json"
    outputs.unlink(missing_ok=True)
    events.write_bytes(b"")
    arguments = {
        "job": job.model_dump_json(),
        **dag.arguments,
        "command": options.command,
        "code_version": code_version(),
        "run_id": record.run_id,
        "started": f"{record.created:.3f}",
    }
    steps = options.cache / "steps"
    write_json_atomic(
        request,
        {
            "pipeline": dag.pipeline,
            "arguments": arguments,
            "cache": str(steps.resolve()),
            "fresh": options.fresh,
            "outputs": str(outputs.resolve()),
        },
    )
    with (options.out / LOG).open("ab") as log:
        log.write(f"\n===== {record.started} start {record.starts}: {record.command}\n".encode())
        log.flush()
        offset = log.tell()
        # KFP leaves a folder behind for every step; here they go with the run.
        with (
            tempfile.TemporaryDirectory(prefix="hasten-run-", ignore_cleanup_errors=True) as temporary,
            _stoppable() as stop,
            _started(request, events, log, options, record, temporary) as child,
        ):
            _follow(child, events, state, view, stop)
            stopped = stop.signal_number
            code = child.poll()
            if stopped:
                _say_stopping(state, view)
            _end_group(child, stop, _CHECKPOINT_SECONDS if _trains(state) else _GRACE_SECONDS)
    if stopped:
        raise InterruptedRunError(stopped)
    if code == 0 and outputs.exists():
        found: dict[str, str] = json.loads(outputs.read_text())
        return found
    raise _explained(state.failure, code, options, offset)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hasten")
    except PackageNotFoundError:
        return "unknown"


@contextlib.contextmanager
def _started(
    request: Path, events: Path, log: IO[bytes], options: Options, record: RunRecord, temporary: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """The child, in a process group of its own that is gone when the block ends, whatever happens in it."""
    environment = {
        **os.environ,
        EVENTS: str(events.resolve()),
        LIFELINE: "stdin",
        PAUSED: str(record.paused_seconds),
        "HASTEN_CACHE": str(options.cache.resolve()),
        "TMPDIR": temporary,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(search_path(options.job_folder)),
        "PYTHONSAFEPATH": "1",
    }
    environment.pop(STEP, None)
    child = subprocess.Popen(
        [sys.executable, "-m", "pipelines.local.child", str(request.resolve())],
        stdin=subprocess.PIPE,  # nothing is ever written; its end tells the steps that we died
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        _kill_group(child)


def search_path(job_folder: Path | None) -> list[str]:
    """Where steps look for modules: hasten first (a folder named `pipelines` is common), then the user's places."""
    import pipelines

    own = str(Path(pipelines.__file__ or "").resolve().parent.parent)
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    beside = [str(job_folder.resolve())] if job_folder else []
    return list(dict.fromkeys([own, *given, *beside, str(Path.cwd())]))


def _end_group(child: "subprocess.Popen[bytes]", stop: "_Stop", grace: float) -> None:
    """Asks the child and its steps to end, and waits: a step that trains writes a checkpoint first."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and stop.times < _IN_A_HURRY and _group_works(child):
        time.sleep(_POLL_SECONDS)


def _group_works(child: "subprocess.Popen[bytes]") -> bool:
    """Whether anything of the group still works; what has ended and was not waited for by anybody does not count."""
    import psutil

    child.poll()
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == child.pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        except OSError:
            continue
    return False


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin:
        child.stdin.close()


def _trains(state: RunState) -> bool:
    """Whether a step is at work that wants to write a checkpoint before it ends."""
    return any(step.step == step.rung and Rung(step.rung).trains for step in state.steps if step.state is State.RUNNING)


def _say_stopping(state: RunState, view: View) -> None:
    words = "writing a checkpoint; Ctrl-C again stops at once" if _trains(state) else "stopping"
    for step in state.steps:
        if step.state is State.RUNNING:
            step.message, step.done, step.total = words, None, None
    view.update(state, {"time": time.time(), "state": "stopping", "message": words})
    view.tick(state)


@dataclass
class _Stop:
    """What was asked for so far."""

    signal_number: int = 0
    times: int = 0


@contextlib.contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Takes SIGINT and SIGTERM for the length of the block; what it yields says which one came, and how often."""
    stop = _Stop()

    def take(number: int, _frame: FrameType | None) -> None:
        stop.signal_number = number
        stop.times += 1

    previous = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _follow(child: "subprocess.Popen[bytes]", events: Path, state: RunState, view: View, stop: _Stop) -> None:
    """Shows events until the child ends or a stop is asked for."""
    with events.open("rb") as stream:
        rest = b""
        while not stop.signal_number:
            ended = child.poll() is not None
            rest = _show(rest + stream.read(), state, view)
            view.tick(state)
            if ended:
                return
            time.sleep(_POLL_SECONDS)


def _show(data: bytes, state: RunState, view: View) -> bytes:
    *lines, rest = data.split(b"\n")
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            state.apply(event)
            view.update(state, event)
    return rest


def _explained(failure: Failure | None, code: int | None, options: Options, log_offset: int) -> UserError | StepError:
    """The one line that says why the child failed."""
    log = options.out / LOG
    if failure is not None and failure.kind == "user":
        return UserError(f"{failure.step}: {failure.message}")
    for place in (options.out, options.cache):
        if place.exists() and shutil.disk_usage(place).free < _FULL_DISK_BYTES:
            return StepError(f"no space left on the disk of {place}; free some or give another place (--out, --cache)")
    if failure is not None:
        return StepError(f"{failure.step}: {failure.message} (details: {log})")
    killed = f" (killed by signal {-code})" if code is not None and code < 0 else ""
    return StepError(f"{_last_error(log, log_offset) or 'the run ended early'}{killed} (details: {log})")


def _last_error(log: Path, offset: int) -> str:
    """The last line of the log that names an exception: why a step failed before it could say so itself."""
    try:
        with log.open("rb") as stream:
            stream.seek(offset)
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # KFP's own last words only say that a task failed.
    return next(
        (line.strip() for line in reversed(lines) if _ERROR_LINE.match(line) and "finished with status" not in line), ""
    )


def _take_results(outputs: dict[str, str], out: Path, record: RunRecord) -> Result:
    """Copies the report into the run's folder; leaderboard.json last, since it says that the results are there."""
    board = Leaderboard.model_validate_json(outputs["board"])
    report = Path(outputs["report_uri"])
    take_files(report, RESULTS, out)
    if not (report / "leaderboard.json").exists():
        write_bytes_atomic(out / "leaderboard.json", board.model_dump_json(indent=2).encode())
    return Result(board=board, published_uri=outputs["published_uri"], record=record)


def take_files(source: Path, names: Sequence[str], out: Path) -> None:
    """Copies those of the named files that there are, each whole or not at all."""
    for name in names:
        if (source / name).exists():
            write_bytes_atomic(out / name, (source / name).read_bytes())
