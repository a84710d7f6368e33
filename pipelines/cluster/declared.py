"""Schedules as they are declared in a file, for GitOps: the server's recurring runs are made equal to it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from components.core.contracts.base import Contract
from components.core.contracts.job import Job
from components.core.errors import UserError
from components.core.job_file import describe, read_fields, read_job, read_text
from pipelines.cluster.connection import Server, speaking_to
from pipelines.cluster.pipeline import LADDER, RETRAIN, ensure_uploaded, gpu_arguments
from pipelines.cluster.schedules import check_schedule, put_schedule, recurring_runs, schedule_name
from pipelines.scheduling import GPU_RESOURCE

if TYPE_CHECKING:
    from kfp import Client

MARK = "hasten: declared in Git, "
"""Begins the description of every recurring run that a file declares; others are left alone."""


class Declared(Contract):
    """One schedule."""

    job: str = Field(description="job file, relative to this one")
    cron: str = Field(description="six fields, seconds first: `0 0 2 * * *` is every day at 2:00")
    pipeline: str = Field(default=LADDER, pattern=f"^({LADDER}|{RETRAIN})$", description="`ladder` or `retrain`")
    gpus: int = Field(default=0, ge=0, description="GPUs of engine builds and benchmarks; 0: on a CPU node")
    gpu_resource: str = Field(default=GPU_RESOURCE, description="Kubernetes' name of the GPU")
    gpu_product: str = Field(default="", description="node label `nvidia.com/gpu.product` of the deployment GPU")
    gpu_image: str = Field(default="", description="image of engine builds and benchmarks")
    service_account: str = Field(default="", description="account that the steps run under")


class DeclaredSchedules(Contract):
    """A file of schedules; an empty list ends all that it declared before."""

    schedules: list[Declared]


@dataclass(frozen=True)
class Wanted:
    """A declared schedule with its job."""

    name: str
    job: Job
    declared: Declared

    @property
    def gpu(self) -> Mapping[str, object]:
        """The pipeline's GPU parameters."""
        each = self.declared
        return gpu_arguments(each.gpus, each.gpu_resource, each.gpu_product, each.gpu_image)


@dataclass(frozen=True)
class Done:
    """What became of one schedule."""

    name: str
    action: str
    """``created``, ``replaced``, ``unchanged`` or ``deleted``."""
    cron: str


def read_declared(path: Path) -> list[Wanted]:
    """Reads a file of schedules and every job that it names.

    Raises:
        UserError: one line a problem; nothing was sent yet.
    """
    try:
        found = DeclaredSchedules.model_validate(
            read_fields(read_text(path), path.name, "schedules file", ("schedules",))
        )
    except ValidationError as error:
        problems = describe(error, DeclaredSchedules)
        raise UserError("\n".join(f"{path.name}: {problem}" for problem in problems)) from None
    wanted: list[Wanted] = []
    for number, each in enumerate(found.schedules):
        try:
            job = read_job(path.parent / each.job)
            check_schedule(job, each.cron, each.pipeline)
        except UserError as error:
            lines = str(error).splitlines()
            raise UserError("\n".join(f"{path.name}: schedules[{number}]: {line}" for line in lines)) from None
        wanted.append(Wanted(schedule_name(job, each.pipeline), job, each))
    names = [each.name for each in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path.name}: schedules: given twice: {', '.join(twice)}; a job has one schedule a pipeline")
    return wanted


def reconcile(client: "Client", server: Server, wanted: list[Wanted], *, dry_run: bool = False) -> list[Done]:
    """Makes the server's recurring runs equal to what is declared.

    What is as declared is left alone, so that it can be done every few minutes. A schedule of a declared name that was
    made by hand, was changed, paused, or runs older code is replaced. A schedule that was declared and is not any more
    is deleted; one that was made by hand and is not declared stays.

    Args:
        client: of `connect`.
        server: that it speaks to.
        wanted: of `read_declared`.
        dry_run: only say what would be done.

    Raises:
        UserError: the server refuses.
    """
    done: list[Done] = []
    with speaking_to(server):
        there = recurring_runs(client, server)
        versions = {}
        if not dry_run:
            versions = {
                each: ensure_uploaded(client, each).version_id for each in {w.declared.pipeline for w in wanted}
            }
    for each in wanted:
        mark = _mark(each, versions.get(each.declared.pipeline, ""))
        same = [run for run in there if run.display_name == each.name]
        if len(same) == 1 and _is(same[0], each, mark, dry_run=dry_run):
            done.append(Done(each.name, "unchanged", each.declared.cron))
            continue
        if not dry_run:
            put_schedule(
                client,
                server,
                each.job,
                each.declared.cron,
                each.gpu,
                "hasten reconcile",
                each.declared.service_account,
                each.declared.pipeline,
                description=mark,
            )
        done.append(Done(each.name, "replaced" if same else "created", each.declared.cron))
    names = {each.name for each in wanted}
    for run in there:
        if str(run.description or "").startswith(MARK) and run.display_name not in names:
            if not dry_run:
                with speaking_to(server):
                    client.delete_recurring_run(run.recurring_run_id)
            done.append(Done(run.display_name, "deleted", _cron(run)))
    return done


def _mark(wanted: Wanted, version: str) -> str:
    """The description of a schedule: it changes with everything that is declared, and with the pipeline's version."""
    facts = [wanted.job.model_dump_json(), wanted.declared.model_dump(mode="json", exclude={"job"}), version]
    return f"{MARK}{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]} of {version}"


def _is(run: Any, wanted: Wanted, mark: str, *, dry_run: bool) -> bool:
    """Whether a recurring run is as declared; a dry run uploads nothing, so that it takes the version as it is."""
    described = str(run.description or "")
    if dry_run and described.startswith(MARK):
        mark = _mark(wanted, described.rpartition(" of ")[2])
    return described == mark and _cron(run) == " ".join(wanted.declared.cron.split()) and str(run.mode) == "ENABLE"


def _cron(run: Any) -> str:
    return str(run.trigger.cron_schedule.cron) if run.trigger and run.trigger.cron_schedule else ""
