"""The KFP definitions of the steps `decide` and `leaderboard`."""

from typing import NamedTuple

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def decide(
    board: str,
    job: str,
    rung: str,
    code_version: str = "",  # noqa: ARG001
    started: str = "",
    training: str = "",
    bundle_uri: str = "",
    run_id: str = "",
) -> NamedTuple("Decided", [("answer", str), ("reason", str), ("training", str)]):  # type: ignore[valid-type]
    """Says whether the ladder climbs to its next rung, and what a training may spend of the budget.

    Args:
        board: the Leaderboard so far, as JSON.
        job: the Job, as JSON.
        rung: the rung in question, for instance ``int8``.
        code_version: version of the code, so that a cached answer of older code is not reused.
        started: Unix time in seconds at which the run began; empty: only the steps' own time counts as wall clock.
        training: the Job of the training rungs, as JSON; empty: the rung trains nothing.
        bundle_uri: folder that is trained on; what a training was allowed to spend is remembered beside it.
        run_id: of this run: asked again, it allows the same.

    Returns:
        answer: ``climb`` or ``stop``. reason: why the budget does not allow the rung; empty in every other case.
        training: as given, with what is left of the budget as the training's own limits.
    """
    from components.core.contracts.job import Job, Rung
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import announce, step
    from components.leaderboard.decide import decided
    from components.leaderboard.grants import with_limits

    with step("decide", rung=rung):
        given, so_far = Job.model_validate_json(job), Leaderboard.model_validate_json(board)
        since = float(started) if started else None
        decision = decided(so_far, rung, given, since)
        if decision.reason:
            announce("noted", decision.reason, rung=rung)
        if decision.climb and training:
            wanted = Job.model_validate_json(training)
            wanted = with_limits(wanted, Rung(rung), so_far, given, since, bundle_uri, run_id)
            training = wanted.model_dump_json()
    return "climb" if decision.climb else "stop", decision.reason, training


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def leaderboard(
    board: str,
    job: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    code_version: str = "",  # noqa: ARG001
    started: str = "",
) -> str:
    """Settles the board: who meets the goal, the Pareto front, the winner and why, what the run cost.

    Args:
        board: the Leaderboard with every rung's rows, as JSON.
        job: the Job, as JSON.
        out: the final Leaderboard, one JSON file.
        metrics: the winner's numbers, which the Kubeflow UI compares between runs.
        code_version: version of the code, so that a cached answer of older code is not reused.
        started: Unix time in seconds at which the run began: what was made before costs nothing.

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
        since = float(started) if started else None
        final = finish(Leaderboard.model_validate_json(board), Job.model_validate_json(job), since)
        text = final.model_dump_json(indent=2)
        Path(out.path).write_text(text, encoding="utf-8")
        metrics.metadata.update(metrics_of(final))
    return text


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def judge(
    job: str,
    challenge: str,
    champion: str,
    report_uri: str,
    page: dsl.Output[dsl.Markdown],
    code_version: str = "",  # noqa: ARG001
) -> NamedTuple("Judged", [("verdict", str), ("outcome", str)]):  # type: ignore[valid-type]
    """Says whether a retrained model takes the place of the one in production.

    Args:
        job: the Job, as JSON; `retrain` has the limits.
        challenge: what `challenge` measured, as JSON.
        champion: version in production.
        report_uri: folder of the ladder's report.
        page: the verdict as a page of the Kubeflow UI.
        code_version: version of the code, so that a cached answer of older code is not reused.

    Returns:
        verdict: `promote` or `keep`. outcome: the same with the reason and the numbers, as JSON.
    """
    from pathlib import Path

    from components.core.contracts.champion import Challenge
    from components.core.contracts.job import Job
    from components.core.formats import markdown
    from components.core.stepping import progress, step
    from components.leaderboard.promotion import judge as decided

    with step("judge"):
        outcome = decided(Job.model_validate_json(job), Challenge.model_validate_json(challenge), champion, report_uri)
        progress(f"{outcome.verdict}: {outcome.reason}")
        Path(page.path).write_text(f"# {outcome.verdict}\n\n{markdown(outcome.reason)}\n", encoding="utf-8")
    return str(outcome.verdict), outcome.model_dump_json()
