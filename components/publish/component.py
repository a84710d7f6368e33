"""KFP definition of `publish`."""

from typing import NamedTuple

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def publish(
    job: str,
    board: str,
    report_uri: str,
    code_version: str = "",
    run_id: str = "",
    source_digest: str = "",
    replaces: str = "",
    outcome: str = "",
) -> str:
    """Publishes the winner of a board and points production to it.

    Args:
        job: the Job as JSON; `publish` says where to.
        board: the final Leaderboard as JSON.
        report_uri: folder of the report.
        code_version: version of hasten's code; part of the cache key and of the provenance.
        run_id: the run's name, for the provenance.
        source_digest: digest of the model and data files, for the provenance.
        replaces: of a retraining: the version that lost against this one; no other is replaced.
        outcome: of a retraining: how it was judged, as JSON; it goes along.

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
            Provenance(run_id=run_id, source_digest=source_digest, code_version=code_version, replaced=replaces),
            outcome=outcome,
        )


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def production(job: str) -> str:
    """Says which version the job's place has in production.

    Never cached. The step after it, which takes the version out of the store, is: a version never changes.

    Args:
        job: the Job as JSON; `publish` says where.

    Returns:
        The version.
    """
    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.publish.champion import current_version

    with step("production"):
        return current_version(Job.model_validate_json(job))


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def champion(
    job: str,
    recipe: str,
    training: str,
    source_digest: str,
    version: str,
    taken: dsl.Output[dsl.Model],
    code_version: str = "",  # noqa: ARG001
) -> NamedTuple(  # type: ignore[valid-type]
    "Taken", [("champion_uri", str), ("job", str), ("recipe", str), ("training", str), ("source_digest", str)]
):
    """Takes a version out of the store, to be measured and trained again.

    Args:
        job: the Job as JSON; `publish` says where.
        recipe: the part of it that decides how models are made.
        training: the same, with how models are trained.
        source_digest: digest of the job's model and data files.
        version: the one in production.
        taken: folder with the version's files and `champion.json`.
        code_version: version of hasten's code; part of the cache key.

    Returns:
        champion_uri: URI of the folder. job, recipe, training: as given, with the version's weights as the model's.
        source_digest: of the data and the version.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.publish.champion import take_champion

    with step("champion") as cost:
        card = take_champion(Job.model_validate_json(job), version, Path(taken.path))
        taken.metadata.update({"version": card.version, "uri": card.uri})
        weights = f"{taken.uri}/{card.weights}" if card.weights else ""
        jobs = [
            Job.model_validate_json(each).with_weights(weights).model_dump_json() for each in (job, recipe, training)
        ]
        cost.keep(Path(taken.path))
    return str(taken.uri), jobs[0], jobs[1], jobs[2], f"{source_digest}-{card.version}"
