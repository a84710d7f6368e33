"""KFP definition of `family`."""

from typing import NamedTuple

from kfp import dsl

from components.core.images import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def family(job: str, bundle_uri: str, code_version: str, trained: dsl.Output[dsl.Model]) -> NamedTuple(  # type: ignore[valid-type]
    "Trained", [("bundle_uri", str), ("recipe", str), ("status", str), ("reason", str)]
):
    """Times untrained models of other families, sizes and resolutions and trains those that can win.

    Args:
        job: the Job as JSON; `family` says whom to look at, `training` how to train, `goal` what to drop by.
        bundle_uri: folder that `fetch` made.
        code_version: version of hasten's code; part of the cache key.
        trained: folder like the bundle, with the winner's weights, `training_card.json` and a README.

    Returns:
        bundle_uri: URI of the trained bundle. recipe: the Job of that model, as JSON. status: `ok`, or `skipped` or
        `failed` when there is no such bundle. reason: why.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.family.run import run_family

    with step("family", rung="family") as cost:
        given = Job.model_validate_json(job)
        card, recipe = run_family(given, materialize(bundle_uri), Path(trained.path), bundle_uri, code_version)
        trained.metadata.update({"winner": card.search.winner if card.search else "", "status": str(card.status)})
        # What the search took in earlier lives, before it was killed and taken up again, counts too.
        wall, core = (card.search.wall_seconds, card.search.core_seconds) if card.search else (0.0, 0.0)
        cost.keep(Path(trained.path), gpus=card.gpus, wall_seconds=wall, core_seconds=core)
    return str(trained.uri), recipe.model_dump_json(), str(card.status), card.reason
