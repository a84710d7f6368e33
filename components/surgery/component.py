"""KFP definition of `surgery`."""

from kfp import dsl

from components.core.images import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def surgery(job: str, exported_uri: str, code_version: str, surgered: dsl.Output[dsl.Model]) -> str:  # noqa: ARG001
    """Makes the exported ONNX model fit for each runtime: folded, cleaned and, for TensorRT, free of plugins.

    Args:
        job: the Job as JSON.
        exported_uri: folder that `export` made.
        code_version: version of hasten's code; part of the cache key.
        surgered: folder with a model file a runtime, the report and `manifest.json`.

    Returns:
        URI of the surgered folder.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.surgery.run import run_surgery

    with step("surgery") as cost:
        stock = materialize(exported_uri)
        run_surgery(Job.model_validate_json(job), stock, Path(surgered.path))
        cost.keep(Path(surgered.path), after=[stock])
    return str(surgered.uri)
