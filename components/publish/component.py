"""KFP definition of `publish`."""

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def publish(
    job: str, board: str, report_uri: str, code_version: str = "", run_id: str = "", source_digest: str = ""
) -> str:
    """Publishes the winner of a board and points production to it.

    Args:
        job: the Job as JSON; `publish` says where to.
        board: the final Leaderboard as JSON.
        report_uri: folder of the report.
        code_version: version of hasten's code; part of the cache key and of the provenance.
        run_id: the run's name, for the provenance.
        source_digest: digest of the model and data files, for the provenance.

    Returns:
        URI of the published version; empty if nothing was published.
    """
    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.publish.provenance import Provenance
    from components.publish.run import run_publish

    with step("publish"):
        return run_publish(
            Job.model_validate_json(job),
            Leaderboard.model_validate_json(board),
            materialize(report_uri),
            Provenance(run_id=run_id, source_digest=source_digest, code_version=code_version),
        )
