"""One model of a fleet on a cluster: a run of the ladder of its own, started from a step of the fleet's run.

A run of its own, because KFP knows no other isolation inside of a loop: an exit handler cannot stand there, retries are
ignored there, and one failing iteration fails the run. So the loop's step starts the ladder as a run, follows it, and
returns a row whatever became of it.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.core.contracts.job import Job
from components.core.errors import StepError, UserError
from components.core.stepping import progress
from pipelines.cluster.connection import HOST, TOKEN, Server, connect, speaking_to
from pipelines.cluster.outcome import published_board
from pipelines.cluster.pipeline import EXPERIMENT, arguments
from pipelines.cluster.runs import FINISHED, follow
from pipelines.fleet.rows import Row, State, failed, row_of, shortened

if TYPE_CHECKING:
    from kfp import Client

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
TOKEN_FILES = ("KF_PIPELINES_SA_TOKEN_PATH", "/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubeflow puts a pod's own token for KFP: named by a variable, or the usual place."""
POLL = 30.0
"""Seconds between two looks at a run."""


class Child(NamedTuple):
    """How a model's run is started."""

    pipeline_id: str
    version_id: str
    gpu: Mapping[str, object]
    account: str
    stamp: str
    """Tells the runs of two fleets apart; with the same one, a run that is there already is taken up."""


def server_of_the_pod(host: str, namespace: str) -> Server:
    """The server as a step of a run reaches it.

    Args:
        host: empty: the environment's, else KFP's usual address inside of the cluster.
        namespace: of a multi-user Kubeflow.
    """
    host = host or os.environ.get(HOST, "") or IN_CLUSTER
    named = os.environ.get(TOKEN_FILES[0], "")
    files = [Path(place) for place in (named, TOKEN_FILES[1]) if place]
    token_file = next((path for path in files if path.is_file()), None)
    if os.environ.get(TOKEN):
        token_file = None
    return Server.of(host, namespace, token_file, None)


def climb(
    job: Job, server: Server, child: Child, poll: float = POLL, sleep: Callable[[float], None] = time.sleep
) -> Row:
    """Runs a model's ladder as a run of its own and waits for its end; never raises for what goes wrong with it."""
    link = ""
    try:
        client = connect(server)
        run_id = _running(client, server, job, child) or _start(client, server, job, child)
        link = f"{server.host}/#/runs/details/{run_id}"
        ended = follow(client, server, run_id, progress, poll, sleep)
        with speaking_to(server):
            seconds = seconds_of(client.get_run(run_id))
    except (UserError, StepError) as error:
        return failed(job.name, str(error), link)
    if ended.state != "SUCCEEDED":
        return failed(job.name, f"{ended.state.lower()}: {ended.why or 'see its run'}", link, seconds)
    board, why = published_board(job)
    if board is None:
        return Row(
            name=job.name, state=State.MISSED, reason=shortened(f"nothing to show: {why}"), link=link, seconds=seconds
        )
    return row_of(job.name, board, seconds, link)


def title(job: Job, stamp: str) -> str:
    """Name of a model's run in the fleet with this stamp."""
    return f"{job.name} {stamp}"


def _running(client: "Client", server: Server, job: Job, child: Child) -> str | None:
    """The run of this model in this fleet, if there is one that has not failed: the step was started anew."""
    chosen = {"predicates": [{"operation": 1, "key": "display_name", "stringValue": title(job, child.stamp)}]}
    with speaking_to(server):
        page = client.list_runs(page_size=10, filter=json.dumps(chosen), namespace=server.namespace or None)
    for run in page.runs or []:
        if str(run.state) not in FINISHED - {"SUCCEEDED"}:
            return str(run.run_id)
    return None


def _start(client: "Client", server: Server, job: Job, child: Child) -> str:
    with speaking_to(server):
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace or None)
        run = client.run_pipeline(
            experiment.experiment_id,
            title(job, child.stamp),
            params=arguments(job, child.gpu, f"hasten submit {job.name}.yaml"),
            pipeline_id=child.pipeline_id,
            version_id=child.version_id,
            service_account=child.account or None,
        )
    return str(run.run_id)


def seconds_of(run: Any) -> float | None:
    """How long a run took; None while it runs."""
    began, ended = run.created_at, run.finished_at
    known = isinstance(began, datetime) and isinstance(ended, datetime) and ended > began
    return round((ended - began).total_seconds(), 1) if known else None
