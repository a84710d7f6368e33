"""KFP definition of `export`."""

from kfp import dsl

from components.core.images import TORCH_IMAGE


@dsl.component(base_image=TORCH_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def export(job: str, bundle_uri: str, code_version: str, exported: dsl.Output[dsl.Model]) -> str:  # noqa: ARG001
    """Exports the model as it is and re-expressed with static shapes.

    Args:
        job: the Job as JSON.
        bundle_uri: folder that `fetch` made.
        code_version: version of hasten's code; part of the cache key.
        exported: folder with `stock.onnx`, `sources/`, `export_card.json` and `manifest.json`.

    Returns:
        URI of the exported folder.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.core.storage import materialize
    from components.export.run import run_export

    with step("export") as cost:
        run_export(Job.model_validate_json(job), materialize(bundle_uri), Path(exported.path))
        cost.keep(Path(exported.path))
    return str(exported.uri)
