"""A fleet to a cluster: its pipeline and the ladder's are uploaded, one run is started."""

import json
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from components.core.errors import UserError
from pipelines.cluster.connection import Server, speaking_to
from pipelines.cluster.outcome import published_board
from pipelines.cluster.pipeline import EXPERIMENT, check_reachable, ensure_package, ensure_uploaded
from pipelines.cluster.runs import FINISHED, Submitted
from pipelines.fleet.children import seconds_of, title
from pipelines.fleet.contract import Fleet
from pipelines.fleet.packing import pack
from pipelines.fleet.rows import Row, State, Summary, failed, row_of, shortened

if TYPE_CHECKING:
    from kfp import Client

PIPELINE = "hasten-fleet"


class SubmittedFleet(NamedTuple):
    """A fleet that the server has accepted."""

    run: Submitted
    stamp: str


def compile_fleet(parallelism: int, folder: Path) -> Path:
    """Compiles the fleet's pipeline with so many models at a time; returns the file."""
    from kfp import compiler

    from pipelines.fleet.pipeline import fleet_of

    path = folder / "fleet.yaml"
    compiler.Compiler().compile(fleet_of(parallelism), str(path))
    return path


def submit_fleet(
    client: "Client", server: Server, fleet: Fleet, gpu: Mapping[str, object], account: str = "", stamp: str = ""
) -> SubmittedFleet:
    """Starts a fleet on the cluster.

    Args:
        client: of `connect`.
        server: that it speaks to.
        fleet: all places of all its jobs are URIs that the cluster can read.
        gpu: the ladder's GPU parameters that differ from their defaults.
        account: service account of the steps; empty: the server's own choice.
        stamp: of an older submission, whose runs that did not fail are taken up; empty: a new one.

    Raises:
        UserError: a job names local files, the fleet is too large, or the server refuses.
    """
    problems = []
    for job in fleet.jobs:
        try:
            check_reachable(job)
        except UserError as error:
            problems.append(f"{job.name}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    packed, stamp = pack(fleet), stamp or uuid.uuid4().hex[:8]
    with speaking_to(server), tempfile.TemporaryDirectory(prefix="hasten-compiled-") as folder:
        ladder = ensure_uploaded(client)
        package = compile_fleet(fleet.parallelism, Path(folder))
        uploaded = ensure_package(client, PIPELINE, package, "Climbs the ladder with many models")
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace or None)
        run = client.run_pipeline(
            experiment.experiment_id,
            fleet.name,
            params={
                "fleet": packed,
                "pipeline_id": ladder.pipeline_id,
                "version_id": ladder.version_id,
                "gpu": dict(gpu),
                "stamp": stamp,
                "namespace": server.namespace,
                "service_account": account,
            },
            pipeline_id=uploaded.pipeline_id,
            version_id=uploaded.version_id,
            service_account=account or None,
        )
    return SubmittedFleet(Submitted(run.run_id, f"{server.host}/#/runs/details/{run.run_id}"), stamp)


def summary_of(client: "Client", server: Server, fleet: Fleet, stamp: str) -> Summary:
    """How each model's run stands, asked of the server; winners where the published boards can be read here."""
    rows = []
    for job in fleet.jobs:
        chosen = {"predicates": [{"operation": 1, "key": "display_name", "stringValue": title(job, stamp)}]}
        with speaking_to(server):
            page = client.list_runs(page_size=10, filter=json.dumps(chosen), namespace=server.namespace or None)
        runs = page.runs or []
        run = next((run for run in runs if str(run.state) == "SUCCEEDED"), runs[-1] if runs else None)
        if run is None:
            rows.append(failed(job.name, "its run was never started"))
            continue
        link, state = f"{server.host}/#/runs/details/{run.run_id}", str(run.state)
        if state != "SUCCEEDED":
            words = state.lower() if state in FINISHED else f"still {state.lower()}"
            rows.append(failed(job.name, f"{words}: see its run", link, seconds_of(run)))
            continue
        board, why = published_board(job)
        if board is None:
            rows.append(Row(name=job.name, state=State.MISSED, reason=shortened(f"nothing to show: {why}"), link=link))
        else:
            rows.append(row_of(job.name, board, seconds_of(run), link))
    return Summary(name=fleet.name, rows=rows)
