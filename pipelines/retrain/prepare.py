"""The small steps of `retrain`."""

from typing import NamedTuple

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def prepare_retraining(job: str, code_version: str = "", run_id: str = "", started: str = "") -> NamedTuple(  # type: ignore[valid-type]
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
    """Reads and checks the job, as `prepare` of the ladder does, and that its model can be trained again.

    Args:
        job: the Job as YAML or JSON text; paths in it are absolute or `s3://`.
        code_version: what the steps' code is; empty: worked out from this image.
        run_id: what tells two runs apart, so that a new run measures again; empty: a new one.
        started: when the run began, Unix time in seconds; empty: now.

    Returns:
        As the ladder's `prepare`.
    """
    from components.core.job_file import parse_job
    from components.core.stepping import step
    from pipelines.ladder.recipe import prepare_run
    from pipelines.retrain.checks import check_retraining

    with step("prepare"):
        check_retraining(parse_job(job))
        return prepare_run(job, "", "", code_version, run_id, started)


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def conclude(outcome: str, published_uri: str) -> str:
    """Adds to the outcome what was published.

    Args:
        outcome: of `judge`, as JSON.
        published_uri: of `publish`; empty where the version had been withdrawn by a rollback.

    Returns:
        The outcome as JSON.
    """
    from components.core.contracts.champion import Outcome
    from components.core.stepping import step
    from pipelines.retrain.outcome import concluded

    with step("conclude"):
        return concluded(Outcome.model_validate_json(outcome), published_uri).model_dump_json()
