"""KFP definition of `distill`."""

from typing import NamedTuple

from kfp import dsl

from components.core.images import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def distill(job: str, bundle_uri: str, code_version: str, trained: dsl.Output[dsl.Model]) -> NamedTuple(  # type: ignore[valid-type]
    "Distilled", [("bundle_uri", str), ("recipe", str), ("status", str), ("reason", str)]
):
    """Teaches a small student what the user's model, or several, say of labelled and unlabelled samples.

    Args:
        job: the Job as JSON; `distill` says who learns from whom, `training` how.
        bundle_uri: folder that `fetch` made.
        code_version: version of hasten's code; part of the cache key.
        trained: folder like the bundle, with the student's weights, `training_card.json` and a README.

    Returns:
        bundle_uri: URI of the trained bundle. recipe: the Job of the student, as JSON. status: `ok`, or `skipped` or
        `failed` when there is no such bundle. reason: why.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.distill.run import run_distill

    with step("distill", rung="distill") as cost:
        given = Job.model_validate_json(job)
        card, recipe = run_distill(given, materialize(bundle_uri), Path(trained.path), bundle_uri, code_version)
        trained.metadata.update({"precision": str(card.precision), "status": str(card.status)})
        # What the training took in earlier lives, before it was killed and taken up again, counts too.
        cost.keep(Path(trained.path), gpus=card.gpus, wall_seconds=card.wall_seconds, core_seconds=card.core_seconds)
    return str(trained.uri), recipe.model_dump_json(), str(card.status), card.reason
