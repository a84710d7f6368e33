"""KFP definition of `fp16`."""

from kfp import dsl

from components.core.images import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def fp16(job: str, surgered_uri: str, bundle_uri: str, code_version: str, models: dsl.Output[dsl.Model]) -> str:  # noqa: ARG001
    """Converts every model that surgery handed on to half precision, where its target computes in it.

    Args:
        job: the Job as JSON.
        surgered_uri: folder that `surgery` made.
        bundle_uri: folder that `fetch` made.
        code_version: version of hasten's code; part of the cache key.
        models: folder with a model file a variant and `manifest.json`.

    Returns:
        URI of the models folder.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.fp16.run import run_fp16

    with step("fp16", rung="fp16") as cost:
        surgered = materialize(surgered_uri)
        run_fp16(Job.model_validate_json(job), surgered, materialize(bundle_uri), Path(models.path))
        cost.keep(Path(models.path), after=[surgered])
    return str(models.uri)
