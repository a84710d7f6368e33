"""A fleet: many jobs with what they have in common, as a page of YAML."""

import copy
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from components.core.contracts.base import Contract
from components.core.contracts.job import Job, Name
from components.core.errors import UserError
from components.core.job_file import build_job, describe, read_fields, read_text, resolve_paths

MAX_MODELS = 200
"""What one run on a cluster can collect: the rows of all models travel in one command line (128 KiB on Linux)."""


class FleetFile(Contract):
    """What the file says."""

    name: Name
    jobs: list[str] = Field(min_length=1, description="job files or patterns (`jobs/*.yaml`), relative to this file")
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="fields of a job that each job has unless its own file says otherwise"
    )
    parallelism: int = Field(default=4, ge=1, le=100, description="models at a time on a cluster; one here")


class Fleet(Contract):
    """A fleet whose jobs are complete: each can be read where this file is not."""

    name: Name
    parallelism: int
    jobs: list[Job]

    def job(self, name: str) -> Job:
        """The job of that name.

        Raises:
            UserError: there is none.
        """
        for job in self.jobs:
            if job.name == name:
                return job
        raise UserError(f"{self.name}: no job is called {name!r}")


def is_fleet(path: Path) -> bool:
    """Whether a file is a fleet and not a job. A file that is neither counts as a job, whose reader says what is wrong.

    Raises:
        UserError: it cannot be read.
    """
    return "jobs" in read_fields(read_text(path), path.name)


def read_fleet(path: Path) -> tuple[Fleet, dict[str, Path]]:
    """Reads a fleet file and all its job files; relative paths are relative to the file that they stand in.

    Returns:
        The fleet, and the folder of each job's file by the job's name.

    Raises:
        UserError: one line a problem, of every job file at once.
    """
    file = _file(path)
    folder = path.resolve().parent
    defaults = copy.deepcopy(file.defaults)
    problems = [f"{path.name}: defaults.{problem}" for problem in resolve_paths(defaults, folder)]
    jobs: dict[str, tuple[Job, Path]] = {}
    for found in _job_files(file, path):
        try:
            job = _job(found, defaults)
        except UserError as error:
            problems += str(error).splitlines()
            continue
        if job.name in jobs:
            problems.append(
                f"{found.name}: name: {job.name!r} is the name of {jobs[job.name][1].name} too; give each job its own"
            )
        jobs.setdefault(job.name, (job, found))
    if problems:
        raise UserError("\n".join(problems))
    fleet = Fleet(name=file.name, parallelism=file.parallelism, jobs=[job for job, _ in jobs.values()])
    return fleet, {name: found.parent for name, (_, found) in jobs.items()}


def merged(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The job's own fields over the defaults; mappings are merged key by key, anything else is replaced."""
    result = copy.deepcopy(defaults)
    for key, value in own.items():
        there = result.get(key)
        result[key] = merged(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return result


def _file(path: Path) -> FleetFile:
    fields = read_fields(read_text(path), path.name, "fleet", list(FleetFile.model_fields))
    try:
        return FleetFile.model_validate(fields)
    except ValidationError as error:
        lines = (f"{path.name}: {problem}" for problem in describe(error, FleetFile))
        raise UserError("\n".join(lines)) from None


def _job_files(file: FleetFile, path: Path) -> list[Path]:
    """The files, each once: in the order of `jobs`, those of a pattern by name."""
    folder = path.resolve().parent
    found: dict[Path, None] = {}
    for given in file.jobs:
        if any(sign in given for sign in "*?["):
            base, pattern = (Path("/"), given.lstrip("/")) if given.startswith("/") else (folder, given)
            matches = sorted(match for match in base.glob(pattern) if match.is_file() and match != path.resolve())
        else:
            matches = [folder / given]
        if not matches:
            raise UserError(f"{path.name}: jobs: no file matches {given!r} in {folder}")
        found.update(dict.fromkeys(matches))
    if len(found) > MAX_MODELS:
        raise UserError(f"{path.name}: jobs: {len(found)} files; a fleet has at most {MAX_MODELS}, split it")
    return list(found)


def _job(path: Path, defaults: dict[str, Any]) -> Job:
    own = read_fields(read_text(path), path.name)
    problems = list(resolve_paths(own, path.parent))
    if problems:
        raise UserError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return build_job(merged(defaults, own), path.name, path.parent)
