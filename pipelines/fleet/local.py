"""A fleet on this machine: one model after the other, since a benchmark must have the machine to itself."""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from components.core.contracts.job import Job
from components.core.errors import StepError, UserError
from components.core.storage import write_bytes_atomic, write_json_atomic
from pipelines.fleet.contract import Fleet
from pipelines.fleet.rows import Row, Summary, failed, markdown, row_of
from pipelines.local.run import Options, View, run_ladder, search_path

SUMMARY, REPORT = "fleet.json", "fleet.md"
ViewOf = Callable[[str], AbstractContextManager[View]]


@dataclass(frozen=True)
class Place:
    """Where a fleet comes from and where it goes."""

    fleet_file: Path
    folders: Mapping[str, Path]
    """Of each job's file, by the job's name; modules there can be its factory."""
    out: Path
    cache: Path
    resume: bool = False
    """Whether runs that finished are taken up and not measured again."""


def run_fleet(fleet: Fleet, place: Place, view_of: ViewOf) -> Summary:
    """Runs every job's ladder into a folder of `place.out`; a job that fails is a row with its reason.

    The summary is written after each model, so that a fleet that is stopped has one of what it did.

    Args:
        fleet: its jobs.
        place: gets `fleet.json`, `fleet.md` and a folder a job.
        view_of: title -> what shows a run.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came.
    """
    rows: list[Row] = []
    for job in fleet.jobs:
        with view_of(f"{fleet.name}: {job.name} ({len(rows) + 1} of {len(fleet.jobs)})") as view:
            rows.append(_run_one(job, place, view))
        write_summary(Summary(name=fleet.name, rows=rows), place.out)
    return Summary(name=fleet.name, rows=rows)


def write_summary(summary: Summary, out: Path) -> None:
    """Writes `fleet.json` and `fleet.md`."""
    out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out / SUMMARY, summary.model_dump(mode="json"))
    write_bytes_atomic(out / REPORT, markdown(summary).encode())


def _run_one(job: Job, place: Place, view: View) -> Row:
    from components.fetch.sources import check_sources
    from components.publish.run import check_destination
    from pipelines.ladder.recipe import check_factory

    out, folder, began = place.out / job.name, place.folders[job.name], time.time()
    before = list(sys.path)
    try:
        sys.path[:] = list(dict.fromkeys([*search_path(folder), *sys.path]))
        check_factory(job)
        check_sources(job)
        check_destination(job)
        command = shlex.join(["hasten", "fleet", str(place.fleet_file), "--out", str(place.out)])
        options = Options(out, place.cache, command, resume=place.resume, job_folder=folder)
        ended = run_ladder(job, options, view)
    except (UserError, StepError) as error:
        return failed(job.name, str(error), str(out), round(time.time() - began, 3))
    finally:
        sys.path[:] = before
    return row_of(job.name, ended.board, ended.record.wall_seconds, str(out))
