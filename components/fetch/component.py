"""KFP definition of `fetch`."""

from kfp import dsl

from components.core.images import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def fetch(job: str, source_digest: str, code_version: str, bundle: dsl.Output[dsl.Dataset]) -> str:  # noqa: ARG001
    """Brings the model and the data to one folder.

    Args:
        job: the Job as JSON; its paths are absolute or URIs.
        source_digest: digest of everything the job refers to; part of the cache key.
        code_version: version of hasten's code; part of the cache key.
        bundle: folder with `model/`, `data/train/`, `data/test/` and `fetch_card.json`.

    Returns:
        URI of the bundle.
    """
    from pathlib import Path

    from components.core.contracts.job import Job
    from components.core.stepping import step
    from components.fetch.run import run_fetch

    with step("fetch") as cost:
        card = run_fetch(Job.model_validate_json(job), Path(bundle.path))
        bundle.metadata.update({"images": card.train.images + card.test.images, "bytes": card.total_bytes})
        cost.keep(Path(bundle.path))
    return str(bundle.uri)
