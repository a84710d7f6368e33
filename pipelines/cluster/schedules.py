"""Recurring runs: one schedule a job name; putting it again replaces it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.core.contracts.job import Job
from components.core.errors import UserError
from pipelines.cluster.connection import Server, speaking_to
from pipelines.cluster.pipeline import EXPERIMENT, LADDER, RETRAIN, arguments, check_reachable, ensure_uploaded
from pipelines.retrain.checks import check_retraining

if TYPE_CHECKING:
    from kfp import Client

_FIELD = re.compile(r"^[\d*?/,\-]+$|^[A-Za-z\d,\-]+$")


@dataclass(frozen=True)
class Schedule:
    """A recurring run of the server."""

    id: str
    name: str
    cron: str
    enabled: bool


def check_cron(text: str) -> str:
    """The cron expression with single spaces.

    Raises:
        UserError: it does not have six fields: Kubeflow's cron begins with seconds.
    """
    fields = text.split()
    if len(fields) != 6 or not all(_FIELD.match(field) for field in fields):
        raise UserError(
            f"--cron: given {text!r}, accepted: six fields, the first is the seconds: "
            "'0 0 2 * * *' is every day at 2:00, '0 30 1 * * 1' every Monday at 1:30"
        )
    return " ".join(fields)


def schedule_name(job: Job, pipeline: str) -> str:
    """A job's schedules, one a pipeline, have names of their own."""
    return job.name if pipeline == LADDER else f"{job.name}-{pipeline}"


def check_schedule(job: Job, cron: str, pipeline: str) -> str:
    """The cron expression with single spaces.

    Raises:
        UserError: it or the job cannot be used for a schedule of this pipeline.
    """
    check_reachable(job)
    if pipeline == RETRAIN:
        check_retraining(job)
    return check_cron(cron)


def put_schedule(
    client: "Client",
    server: Server,
    job: Job,
    cron: str,
    gpu: Mapping[str, object],
    command: str,
    account: str = "",
    pipeline: str = LADDER,
    description: str = "",
) -> tuple[Schedule, bool]:
    """Runs the job at the given times; one run at a time, and runs that were missed are not made up for.

    KFP cannot change a recurring run, so the new one is made before the old ones of that name go: a failure in between
    leaves one too many and never none.

    Returns:
        The schedule, and whether it replaced one.

    Raises:
        UserError: the cron expression or the job cannot be used, or the server refuses.
    """
    cron = check_schedule(job, cron, pipeline)
    name = schedule_name(job, pipeline)
    with speaking_to(server):
        uploaded = ensure_uploaded(client, pipeline)
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace or None)
        before = _named(client, server, name)
        made = client.create_recurring_run(
            experiment.experiment_id,
            name,
            description=description or f"hasten: {pipeline} on a schedule",
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            params=arguments(job, gpu, command),
            pipeline_id=uploaded.pipeline_id,
            version_id=uploaded.version_id,
            service_account=account or None,
        )
        for old in before:
            client.delete_recurring_run(old.id)
    return _schedule(made), bool(before)


def list_schedules(client: "Client", server: Server) -> list[Schedule]:
    """All recurring runs of the experiment that hasten uses, by name."""
    with speaking_to(server):
        return sorted(_all(client, server), key=lambda schedule: schedule.name)


def delete_schedule(client: "Client", server: Server, name: str) -> int:
    """Deletes the schedule of that name; how many there were.

    Raises:
        UserError: there is none.
    """
    with speaking_to(server):
        found = _named(client, server, name)
        if not found:
            known = ", ".join(sorted(schedule.name for schedule in _all(client, server))) or "none"
            raise UserError(f"no schedule is called {name!r}; there are: {known}")
        for schedule in found:
            client.delete_recurring_run(schedule.id)
    return len(found)


def _named(client: "Client", server: Server, name: str) -> list[Schedule]:
    return [schedule for schedule in _all(client, server) if schedule.name == name]


def _all(client: "Client", server: Server) -> list[Schedule]:
    return [_schedule(run) for run in recurring_runs(client, server)]


def recurring_runs(client: "Client", server: Server) -> list[Any]:
    """What the server has in hasten's experiment, as it tells it."""
    experiment = _experiment(client, server)
    if experiment is None:
        return []
    found: list[Any] = []
    token = ""
    while True:
        page = client.list_recurring_runs(page_token=token, page_size=100, experiment_id=experiment)
        found += page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            return found


def _experiment(client: "Client", server: Server) -> str | None:
    chosen = {"predicates": [{"operation": 1, "key": "display_name", "stringValue": EXPERIMENT}]}
    listed = client.list_experiments(filter=json.dumps(chosen), namespace=server.namespace or None)
    return str(listed.experiments[0].experiment_id) if listed.experiments else None


def _schedule(run: Any) -> Schedule:
    cron = run.trigger.cron_schedule.cron if run.trigger and run.trigger.cron_schedule else ""
    return Schedule(run.recurring_run_id, run.display_name, cron, str(run.mode) == "ENABLE")
