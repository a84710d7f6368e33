"""The first step of the ladder: a job as a person wrote it becomes what the other steps are given."""

from typing import NamedTuple

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def prepare(
    job: str, mode: str = "", rungs: str = "", code_version: str = "", run_id: str = "", started: str = ""
) -> NamedTuple(  # type: ignore[valid-type]
    "Prepared",
    [
        ("job", str),
        ("recipe", str),
        ("training", str),
        ("search", str),
        ("distilling", str),
        ("source_digest", str),
        ("code_version", str),
        ("run_id", str),
        ("started", str),
    ],
):
    """Reads and checks the job and works out what the cache keys of the other steps need.

    Never cached: the files behind a job can change while its text does not.

    Args:
        job: the Job as YAML or JSON text; paths in it are absolute or `s3://`.
        mode: `stop-when-met` or `exhaustive`; empty: as the job says.
        rungs: comma-separated rungs, for instance `int8,fp16`; empty: as the job says.
        code_version: what the steps' code is; empty: worked out from this image.
        run_id: what tells two runs apart, so that a new run measures again; empty: a new one.
        started: when the run began, Unix time in seconds; empty: now.

    Returns:
        job: the whole Job as JSON. recipe: the Job as far as it decides how models are made. training: the same, with
        how the training rungs train. search: that, with the goal and how the searching rungs search. distilling: that,
        with who learns from whom. source_digest: hash of the model and data files. code_version, run_id and started: as
        given or made up.
    """
    from components.core.stepping import step
    from pipelines.ladder.recipe import prepare_run

    with step("prepare"):
        return prepare_run(job, mode, rungs, code_version, run_id, started)


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def destination(board: str, job: str) -> str:
    """Says whether the ladder's result is to be published.

    Args:
        board: the final Leaderboard, as JSON.
        job: the Job, as JSON.

    Returns:
        `publish` if there is a winner and the job says where to put it, else `keep`.
    """
    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import step

    with step("destination"):
        wanted = Job.model_validate_json(job).publish is not None
        found = Leaderboard.model_validate_json(board).winner is not None
    return "publish" if wanted and found else "keep"


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def pass_on(board: str, job: str, rung: str, reason: str = "") -> str:
    """Passes the board on past a rung that is not climbed.

    Args:
        board: the Leaderboard so far, as JSON.
        job: the Job, as JSON.
        rung: the rung.
        reason: why the budget does not allow it, which becomes a row; empty: it is not needed, and the board stays.

    Returns:
        The Leaderboard, as JSON.
    """
    from pipelines.ladder.rows import with_left_out

    return with_left_out(board, job, rung, reason) if reason else board


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def keep(value: str) -> str:
    """Passes a value on: the other side of a branch, which `dsl.OneOf` needs a task for.

    Args:
        value: a board as JSON, a URI, or nothing.

    Returns:
        The same.
    """
    return value
