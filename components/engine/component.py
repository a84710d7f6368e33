"""KFP definition of `engine`."""

from kfp import dsl

from components.core.images import TENSORRT_IMAGE


@dsl.component(base_image=TENSORRT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def engine(job: str, models_uri: str, code_version: str, engines: dsl.Output[dsl.Model]) -> str:  # noqa: ARG001
    """Builds the engines of a rung's TensorRT variants and passes the other variants on.

    Args:
        job: the Job as JSON.
        models_uri: folder that a rung made.
        code_version: version of hasten's code; part of the cache key.
        engines: folder with a model or an engine a variant and `manifest.json`.

    Returns:
        URI of the engines folder.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.engine.run import run_engine

    with step("engine") as cost:
        given, models = Job.model_validate_json(job), materialize(models_uri)
        run_engine(given, models, Path(engines.path))
        cost.keep(Path(engines.path), after=[models], gpus=given.target.gpus)
    return str(engines.uri)
