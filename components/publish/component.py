"""KFP definition of `publish`."""

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def publish(job: str, board: str, report_uri: str, code_version: str = "") -> str:  # noqa: ARG001
    """Publishes the winner of a board and points production to it.

    Args:
        job: the Job as JSON; `publish` says where to.
        board: the final Leaderboard as JSON.
        report_uri: folder of the report.
        code_version: version of hasten's code; part of the cache key.

    Returns:
        URI of the published version; empty if nothing was published.
    """
    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.publish.run import run_publish

    with step("publish"):
        return run_publish(
            Job.model_validate_json(job), Leaderboard.model_validate_json(board), materialize(report_uri)
        )
