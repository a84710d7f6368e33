"""What a run keeps in its folder beside the results: `run.json`, and a lock while it runs."""

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from components.core.errors import UserError
from components.core.storage import write_json_atomic

RECORD = "run.json"
HIDDEN = ".hasten"
EVENTS = "events.jsonl"


class Stage(StrEnum):
    """How far a run got."""

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    FINISHED = "finished"


class StepRecord(BaseModel):
    """One step of the DAG as it went."""

    step: str
    rung: str
    state: str
    seconds: float = Field(description="inside the step's own logic; 0 for a cached one")
    core_seconds: float = Field(default=0.0, description="processor time of it and of the processes that it started")


class RunRecord(BaseModel):
    """`run.json`. An unfinished run keeps its `run_id`, so that what it measured already counts when it is resumed."""

    run_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    stage: Stage = Stage.RUNNING
    job: str = ""
    command: str = ""
    version: str = ""
    started: str = Field(default="", description="ISO 8601, UTC; of the last start")
    created: float = Field(default_factory=time.time, description="Unix time in seconds of the first start")
    paused_seconds: float = Field(default=0.0, description="between being stopped and being taken up again, so far")
    starts: int = Field(default=0, description="how often it was started: 1 unless it was resumed")
    wall_seconds: float | None = Field(default=None, description="of the last start, from the command to the result")
    step_seconds: float | None = Field(
        default=None, description="spent inside the logic of the steps, of the last start"
    )
    overhead: float | None = Field(default=None, description="share of the wall time that no step's logic used, 0..1")
    exit_code: int | None = None
    reason: str = Field(default="", description="why it failed")
    steps: list[StepRecord] = []

    def write(self, folder: Path) -> None:
        """Writes `run.json`, whole or not at all."""
        write_json_atomic(folder / RECORD, self.model_dump(mode="json"))


def last_record(folder: Path) -> RunRecord | None:
    """The record of the folder's last run; None where there is none, or none that can be read."""
    try:
        return RunRecord.model_validate(json.loads((folder / RECORD).read_text()))
    except (OSError, ValueError, ValidationError):
        return None


def next_record(folder: Path, resume: bool = False) -> RunRecord:
    """The record to go on with: the last run's if it did not finish, else a new one.

    Args:
        folder: the run's folder.
        resume: go on with the last run even if it finished.
    """
    last = last_record(folder)
    if last is None or (last.stage is Stage.FINISHED and not resume):
        return RunRecord(starts=1)
    paused = last.paused_seconds + max(time.time() - _last_sign_of_life(folder), 0.0)
    return RunRecord(run_id=last.run_id, starts=last.starts + 1, created=last.created, paused_seconds=round(paused, 3))


def _last_sign_of_life(folder: Path) -> float:
    """Unix time in seconds; a run that was killed wrote no last word, but its steps did."""
    signs = [path.stat().st_mtime for path in (folder / RECORD, folder / HIDDEN / EVENTS) if path.exists()]
    return max(signs, default=time.time())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for one run; the kernel lets go of it when the process ends, however it ends.

    Raises:
        UserError: another run holds it.
    """
    (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / HIDDEN / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{folder}: another run (process {holder}) is at work there; wait for it or give another --out"
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
