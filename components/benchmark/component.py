"""KFP definition of `benchmark`."""

from kfp import dsl

from components.core.images import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def benchmark(
    job: str,
    bundle_uri: str,
    exported_uri: str,
    models_uri: str,
    rung: str,
    board: str,
    code_version: str,  # noqa: ARG001
    run_id: str,  # noqa: ARG001
    measured: dsl.Output[dsl.Artifact],
    made_of_uri: str = "",
) -> str:
    """Measures candidates side by side with the baseline and adds their rows to the board.

    Args:
        job: the Job as JSON.
        bundle_uri: folder that `fetch` made, with the test split; empty: it is `made_of_uri`.
        exported_uri: folder that `export` made of the user's own model: the baseline.
        models_uri: folder with the candidates of the rung; empty for the rung `baseline`.
        rung: `baseline`, or the rung that made the candidates.
        board: the Leaderboard so far as JSON; empty for the rung `baseline`.
        code_version: version of hasten's code; part of the cache key.
        run_id: differs from run to run, so that nothing measured is reused.
        measured: folder with `measurement.json`, `detections/` and `logs/`.
        made_of_uri: bundle that the candidates were made of: `fetch`'s, or a training rung's, which names them.

    Returns:
        The Leaderboard with the new rows, as JSON.
    """
    from pathlib import Path

    from components.benchmark.run import run_benchmark
    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.costs import charged
    from components.core.stepping import step
    from components.core.storage import materialize

    with step("benchmark", rung=rung) as cost:
        given = Job.model_validate_json(job)
        bundle, exported = materialize(bundle_uri or made_of_uri), materialize(exported_uri)
        models = materialize(models_uri) if models_uri else None
        made_of = materialize(made_of_uri) if made_of_uri else None
        extended = run_benchmark(
            given,
            bundle,
            exported,
            models,
            rung,
            Leaderboard.model_validate_json(board) if board else None,
            Path(measured.path),
            made_of=made_of,
            exported_uri=exported_uri,
            models_uri=models_uri or None,
            out_uri=str(measured.uri),
            made_of_uri=made_of_uri or bundle_uri,
        )
        folders = [bundle, exported] if models is None else [made_of or bundle, models]
        name = "" if models is None else rung
        extended = charged(extended, name, folders, cost.cost(given.target.gpus))
    return str(extended.model_dump_json())


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def challenge(
    job: str,
    bundle_uri: str,
    champion_uri: str,
    board: str,
    code_version: str,  # noqa: ARG001
    run_id: str,  # noqa: ARG001
    measured: dsl.Output[dsl.Artifact],
) -> str:
    """Measures a board's winner against the version in production: same rounds, same test images.

    Args:
        job: the Job as JSON.
        bundle_uri: folder that `fetch` made, with the test split.
        champion_uri: folder that `champion` made.
        board: the final Leaderboard of the retrained model, as JSON.
        code_version: version of hasten's code; part of the cache key.
        run_id: differs from run to run, so that nothing measured is reused.
        measured: folder with `measurement.json`, `detections/` and `logs/`.

    Returns:
        The Challenge as JSON; without numbers, and with the reason, where the board has no winner.
    """
    from pathlib import Path

    from components.benchmark.challenge import run_challenge
    from components.core.contracts.job import Job
    from components.core.contracts.leaderboard import Leaderboard
    from components.core.stepping import step
    from components.core.storage import materialize

    with step("challenge"):
        found = run_challenge(
            Job.model_validate_json(job),
            materialize(bundle_uri),
            materialize(champion_uri),
            Leaderboard.model_validate_json(board),
            Path(measured.path),
        )
    return str(found.model_dump_json())
