"""The KFP definitions of the steps `decide` and `leaderboard`."""

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def decide(board: str, job: str, rung: str, code_version: str = "") -> str:  # noqa: ARG001
    """Says whether the ladder climbs to its next rung.

    Args:
        board: the Leaderboard so far, as JSON.
        job: the Job, as JSON.
        rung: the rung in question, for instance ``int8``.
        code_version: version of the code, so that a cached answer of older code is not reused.

    Returns:
        ``climb`` or ``stop``.
    """
    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import step
    from components.leaderboard.decide import should_climb

    with step("decide", rung=rung):
        climb = should_climb(Leaderboard.model_validate_json(board), rung, Job.model_validate_json(job))
    return "climb" if climb else "stop"


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def leaderboard(
    board: str,
    job: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    code_version: str = "",  # noqa: ARG001
) -> str:
    """Settles the board: who meets the goal, the Pareto front, the winner and why.

    Args:
        board: the Leaderboard with every rung's rows, as JSON.
        job: the Job, as JSON.
        out: the final Leaderboard, one JSON file.
        metrics: the winner's numbers, which the Kubeflow UI compares between runs.
        code_version: version of the code, so that a cached answer of older code is not reused.

    Returns:
        The final Leaderboard, as JSON.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import step
    from components.leaderboard.finish import finish
    from components.leaderboard.metrics import metrics_of

    with step("leaderboard"):
        final = finish(Leaderboard.model_validate_json(board), Job.model_validate_json(job))
        text = final.model_dump_json(indent=2)
        Path(out.path).write_text(text, encoding="utf-8")
        metrics.metadata.update(metrics_of(final))
    return text
