"""A run on a cluster: started, followed task by task, and what became of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from components.core.contracts.job import Job
from components.core.errors import StepError
from pipelines.cluster.connection import Server, UnreachableError, speaking_to
from pipelines.cluster.pipeline import EXPERIMENT, arguments, check_reachable, ensure_uploaded

if TYPE_CHECKING:
    from kfp import Client

FINISHED = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
POLL = 10.0
"""Seconds between two looks at a run."""
MISSES = 5
"""Looks in a row that the server may leave unanswered."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Submitted:
    """A run that the server has accepted."""

    run_id: str
    url: str


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    state: str
    why: str
    """What the task that failed said; empty where nothing failed."""


def submit(
    client: "Client", server: Server, job: Job, gpu: Mapping[str, object], command: str, account: str = ""
) -> Submitted:
    """Starts the ladder on the cluster.

    Args:
        client: of `connect`.
        server: that it speaks to.
        job: all its places are URIs that the cluster can read.
        gpu: the pipeline's GPU parameters that differ from their defaults.
        command: what starts this run again, for the report.
        account: service account of the steps; empty: the server's own choice.

    Raises:
        UserError: the job names local files, or the server refuses.
    """
    check_reachable(job)
    with speaking_to(server):
        uploaded = ensure_uploaded(client)
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace or None)
        run = client.run_pipeline(
            experiment.experiment_id,
            job.name,
            params=arguments(job, gpu, command),
            pipeline_id=uploaded.pipeline_id,
            version_id=uploaded.version_id,
            service_account=account or None,
        )
    return Submitted(run.run_id, f"{server.host}/#/runs/details/{run.run_id}")


def follow(
    client: "Client",
    server: Server,
    run_id: str,
    say: Say,
    poll: float = POLL,
    sleep: Callable[[float], None] = time.sleep,
) -> Ended:
    """Says what each task does until the run has ended.

    A server that does not answer for a while is waited for: the run goes on without us.

    Raises:
        UserError: the server refuses, or does not answer at `MISSES` looks in a row.
    """
    said: dict[str, str] = {}
    missed = 0
    while True:
        try:
            with speaking_to(server):
                run = client.get_run(run_id)
            missed = 0
        except (UnreachableError, StepError):
            missed += 1
            if missed > MISSES:
                raise
            say("the server does not answer; the run goes on, trying again")
            sleep(poll)
            continue
        for task in _tasks(run):
            state = str(task.state or "PENDING")
            if task.display_name and said.get(task.task_id) != state:
                said[task.task_id] = state
                say(_line(task, state))
        if str(run.state) in FINISHED:
            return Ended(str(run.state), _why(run))
        sleep(poll)


def _tasks(run: Any) -> list[Any]:
    """In the order in which they were made; KFP's own drivers are left out."""
    details = run.run_details.task_details if run.run_details else None
    tasks = [task for task in details or [] if not str(task.display_name or "").endswith("-driver")]
    return sorted(tasks, key=lambda task: _moment(task.create_time))


def _moment(value: datetime | None) -> float:
    return value.timestamp() if value is not None else 0.0


def _line(task: Any, state: str) -> str:
    seconds = _moment(task.end_time) - _moment(task.start_time)
    took = f" ({seconds:.0f} s)" if state in FINISHED and task.end_time and task.start_time else ""
    return f"{task.display_name}: {state.lower()}{took}"


def _why(run: Any) -> str:
    """The first task that failed, with its error where the server has one."""
    if str(run.state) == "SUCCEEDED":
        return ""
    for task in _tasks(run):
        if str(task.state) == "FAILED" and not task.child_tasks:
            words = " ".join(str(task.error.message).split()) if task.error and task.error.message else ""
            return f"{task.display_name} failed{': ' + words if words else ''}"
    return " ".join(str(run.error.message).split()) if run.error and run.error.message else ""
