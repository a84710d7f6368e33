"""What the live view knows: the DAG's steps and their states, worked out from the events alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

COMPRESSIONS = ("int8", "fp16")
"""Rungs that need no training, and what every training rung's model goes through."""


class State(StrEnum):
    """Of one step."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass
class StepState:
    """One step of the DAG."""

    step: str
    rung: str
    state: State = State.WAITING
    started: float | None = None
    """Unix time in seconds."""
    seconds: float = 0.0
    """Inside its logic, once it ended."""
    core_seconds: float = 0.0
    """Processor time of the same."""
    note: str = ""
    """What it had to say that outlasts it: of a decision, why the budget does not allow the rung."""
    message: str = ""
    done: float | None = None
    total: float | None = None
    progress_started: tuple[float, float] | None = None
    """Time and `done` of the first event of this message; the ETA is worked out from there."""

    def elapsed(self, now: float) -> float:
        """Seconds since it started, or that it took."""
        if self.state is State.RUNNING and self.started is not None:
            return max(now - self.started, 0.0)
        return self.seconds

    def share(self) -> float | None:
        """How much of the present message's work is done, 0..1; None if it did not say."""
        if self.done is None or not self.total:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)

    def eta(self, now: float) -> float | None:
        """Seconds left of the present message's work, from its pace so far; None if there is no pace yet."""
        if self.share() is None or self.progress_started is None or self.done is None or self.total is None:
            return None
        since, done = now - self.progress_started[0], self.done - self.progress_started[1]
        if done <= 0 or since < 1:
            return None
        return (self.total - self.done) * since / done


@dataclass
class Failure:
    """Why the run failed."""

    step: str
    kind: str
    """`user`, `step` or `internal`."""
    message: str


def planned(rungs: Sequence[str], publishes: bool) -> list[StepState]:
    """The steps that a run of these rungs would take if it climbed all of them."""
    rows = [StepState(step, "") for step in ("prepare", "fetch", "export", "benchmark")]
    for rung in rungs:
        rows += [StepState(step, rung) for step in ("decide", *_steps_of(rung))]
    rows += [StepState(step, "") for step in ("leaderboard", "report")]
    return rows + ([StepState("publish", "")] if publishes else [])


def planned_retraining() -> list[StepState]:
    """The steps of a retraining that goes all the way to a promotion."""
    before = ["prepare", "production", "champion", "fetch", "drift", "export", "benchmark"]
    after = ["leaderboard", "report", "challenge", "judge", "publish", "conclude"]
    return [StepState(step, "") for step in [*before, *_steps_of("amp"), *after]]


def _steps_of(rung: str) -> list[str]:
    """What a rung climbs through: of a training rung, itself and then both ways to compress what it trained."""
    if rung in COMPRESSIONS:
        return ["export", "surgery", rung, "engine", "benchmark"]
    compressed = [["export", "surgery", technique, "engine", "benchmark"] for technique in COMPRESSIONS]
    return [rung, *(step for steps in compressed for step in steps)]


@dataclass
class RunState:
    """Everything that is shown."""

    steps: list[StepState]
    started: float
    """Unix time in seconds."""
    board: Mapping[str, Any] | None = None
    failure: Failure | None = None
    finished: bool = False
    _position: int = field(default=0, repr=False)

    def apply(self, event: Mapping[str, Any]) -> StepState | None:
        """Takes in one event; returns the step that it changed, if it changed one."""
        state, name, time = event.get("state"), str(event.get("step", "")), float(event.get("time", self.started))
        if state == "board":
            self.board = event.get("board")
            return None
        if state == "finished":
            self.finished = True
            self._skip_to(len(self.steps))
            return None
        if state in ("started", "cached"):
            step = self._enter(name, str(event.get("rung", "")))
        else:
            step = next((each for each in self.steps if each.step == name and each.state is State.RUNNING), None)
        if state == "failed":
            self.failure = Failure(name, str(event.get("kind", "internal")), str(event.get("message", "")))
        if step is None:
            return None
        match state:
            case "started":
                step.state, step.started = State.RUNNING, time
            case "cached":
                step.state, step.started = State.CACHED, time
            case "progress":
                _take_progress(step, event, time)
            case "noted":
                step.note = str(event.get("message", ""))
            case "done" | "failed":
                step.state = State.DONE if state == "done" else State.FAILED
                step.seconds = float(event.get("seconds") or 0.0)
                step.core_seconds = float(event.get("core_seconds") or 0.0)
                step.message = str(event.get("message", "")) if state == "failed" else ""
                step.done = step.total = None
        return step

    @property
    def step_seconds(self) -> float:
        """Time spent inside the steps' logic so far."""
        return sum(step.seconds for step in self.steps)

    def _enter(self, name: str, rung: str) -> StepState | None:
        """The step that now starts: the next one of its name; what is passed over was not needed."""
        for index in range(self._position, len(self.steps)):
            step = self.steps[index]
            if step.step == name and step.state is State.WAITING and (name != "decide" or step.rung == rung):
                self._skip_to(index)
                self._position = index + 1
                return step
        return None

    def _skip_to(self, end: int) -> None:
        for step in self.steps[self._position : end]:
            if step.state is State.WAITING:
                step.state = State.SKIPPED


def _take_progress(step: StepState, event: Mapping[str, Any], time: float) -> None:
    message, done, total = str(event.get("message", "")), event.get("done"), event.get("total")
    if message != step.message or total != step.total or step.progress_started is None:
        step.progress_started = (time, float(done or 0.0))
    step.message, step.done, step.total = message, done, total
