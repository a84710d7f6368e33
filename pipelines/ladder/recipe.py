"""What `prepare` does, free of KFP: overrides, checks, and the part of a job that decides how models are made."""

import importlib.util
import time
import uuid
from collections.abc import Collection
from typing import NamedTuple

from components.core.contracts.job import Backbone, Budget, Distill, Family, Job, Ladder, Mode, Rung, Training
from components.core.errors import UserError
from components.core.factory_code import factories
from components.core.job_file import parse_job
from components.fetch.sources import check_sources, source_digest
from pipelines.code_version import code_version as own_code_version


class Prepared(NamedTuple):
    """Outputs of `prepare`."""

    job: str
    recipe: str
    training: str
    search: str
    distilling: str
    source_digest: str
    code_version: str
    run_id: str
    started: str


def prepare_run(job_text: str, mode: str, rungs: str, code_version: str, run_id: str, started: str = "") -> Prepared:
    """Reads and checks a job and works out what the cache keys of the other steps need.

    Args:
        job_text: YAML or JSON.
        mode: as of `overridden`.
        rungs: the same.
        code_version: empty: this image's.
        run_id: empty: a new one.
        started: Unix time in seconds; empty: the present.

    Raises:
        UserError: the job, an override or a file that the job names cannot be used.
    """
    job = overridden(parse_job(job_text), mode, rungs)
    check_sources(job)
    made = recipe(job)
    training = made.model_copy(update={"training": job.training})
    # What a search drops depends on the goal, and a search on its settings.
    search = training.model_copy(update={"goal": job.goal, "backbone": job.backbone, "family": job.family})
    return Prepared(
        job=job.model_dump_json(),
        recipe=made.model_dump_json(),
        training=training.model_dump_json(),
        search=search.model_dump_json(),
        distilling=training.model_copy(update={"distill": job.distill}).model_dump_json(),
        source_digest=source_digest(job),
        code_version=code_version or own_code_version(),
        run_id=run_id or uuid.uuid4().hex,
        started=_time(started),
    )


def _time(started: str) -> str:
    try:
        return f"{float(started) if started else time.time():.3f}"
    except ValueError:
        raise UserError(
            f"started: given {started!r}, accepted: Unix time in seconds, for instance 1767225600; or nothing"
        ) from None


def check_factory(job: Job) -> None:
    """Refuses factories in packages that Python does not find here; nothing is imported to find out.

    For a run on this machine. On a cluster only the image that exports has the user's package.

    Raises:
        UserError: there is no such package.
    """
    for field, factory in factories(job).items():
        top = factory.partition(":")[0].partition(".")[0]
        try:
            found = importlib.util.find_spec(top) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            raise UserError(
                f"{field}: {factory}: there is no Python module {top!r}; install it, "
                "put it beside the job file, or add its folder to PYTHONPATH"
            )


def check_candidates(job: Job, rungs: Collection[Rung]) -> None:
    """Refuses candidates of a search that nothing is called, before anything is done.

    For a run on this machine, where the libraries are whose networks they name.

    Args:
        job: as read.
        rungs: that are to be climbed.

    Raises:
        UserError: there is no such network.
    """
    if Rung.BACKBONE in rungs and job.backbone.candidates:
        from components.backbone.names import expand

        expand(job.backbone.candidates, job.target.device)


def overridden(job: Job, mode: str = "", rungs: str = "") -> Job:
    """The job with another mode or other rungs; empty text leaves it as it is.

    Args:
        job: the job as read.
        mode: `stop-when-met` or `exhaustive`.
        rungs: comma-separated; they are climbed in the ladder's own order.

    Raises:
        UserError: no such mode or rung.
    """
    modes, known = [str(each) for each in Mode], [str(each) for each in Rung]
    if mode and mode not in modes:
        raise UserError(f"mode: given {mode!r}, accepted: {', '.join(modes)}")
    names = [name.strip() for name in rungs.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or (rungs and not names):
        raise UserError(f"rungs: given {rungs!r}, accepted: one or more of {', '.join(known)}, separated by commas")
    ladder = Ladder(
        rungs=[rung for rung in Rung if str(rung) in names] if names else job.ladder.rungs,
        mode=Mode(mode) if mode else job.ladder.mode,
    )
    return job.model_copy(update={"ladder": ladder})


def recipe(job: Job) -> Job:
    """The job with everything that models do not depend on set to one fixed value.

    The steps up to `engine` get this one, so that a stricter goal, another mode or another place to publish to does not
    make them work again: their cache keys stay the same.
    """
    return job.model_copy(
        update={
            "name": "recipe",
            "goal": job.goal.of_models(),
            "ladder": Ladder(),
            "budget": job.budget.model_copy(update=_measuring(Budget())),
            "training": Training(),
            "backbone": Backbone(),
            "family": Family(),
            "distill": _fetched(job.distill),
            "publish": None,
            "retrain": None,
        }
    )


def _fetched(distill: Distill | None) -> Distill | None:
    """What of `distill` is brought with the model and the data: its files, not how they are used."""
    return Distill(student=distill.student, teachers=distill.teachers) if distill else None


def _measuring(budget: Budget) -> dict[str, object]:
    """What of a budget no model depends on: how it is measured, and when the ladder stops for want of it."""
    names = ("rounds", "round_time", "max_time", "max_core_time", "max_gpu_time")
    return {name: getattr(budget, name) for name in names}
