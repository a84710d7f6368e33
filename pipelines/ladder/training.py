"""What every rung that trains does: its bundle goes through both techniques that need no training."""

from typing import Any

from kfp import dsl

from components.core.contracts.job import Rung
from components.core.images import LIGHT_IMAGE, TORCH_IMAGE
from pipelines.compress.pipeline import compress
from pipelines.scheduling import GPU_RESOURCE, LIGHT, place

TECHNIQUES = (Rung.INT8, Rung.FP16)
"""What is done to a newly trained model, one after the other."""


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)  # type: ignore[untyped-decorator]
def note(board: str, job: str, rung: str, status: str, reason: str, made_uri: str = "") -> str:
    """Adds the row of a rung that trained nothing, with the reason.

    Args:
        board: the Leaderboard so far, as JSON.
        job: the Job, as JSON.
        rung: the rung, for instance `amp`.
        status: `skipped` or `failed`.
        reason: why.
        made_uri: the folder that the rung left, for what it cost all the same.

    Returns:
        The Leaderboard with the new row, as JSON.
    """
    from components.core.stepping import step
    from components.core.storage import materialize
    from pipelines.ladder.rows import with_untrained

    with step("note", rung=rung):
        made = materialize(made_uri) if made_uri else None
        extended: str = with_untrained(board, job, rung, status, reason, made)
    return extended


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="compress-trained",
    description="compress, once a technique, of what a training rung made; or the reason why not",
)
def compress_trained(
    job: str,
    recipe: str,
    bundle_uri: str,
    status: str,
    reason: str,
    baseline_uri: str,
    baseline_bundle_uri: str,
    rung: str,
    board: str,
    code_version: str = "",
    run_id: str = "",
    gpus: str = "0",
    gpu_resource: str = GPU_RESOURCE,
    gpu_node_selector: dict = {},  # type: ignore[type-arg]  # noqa: B006
    gpu_tolerations: list = [],  # type: ignore[type-arg]  # noqa: B006
    gpu_image: str = TORCH_IMAGE,
) -> str:
    """Compresses a trained model by every technique and adds what came of it to the board.

    Args:
        job: the Job as JSON: what is measured and against which goal.
        recipe: the Job of the trained model, as JSON: how it is exported and quantized.
        bundle_uri: folder that the rung made.
        status: `ok`, or `skipped` or `failed` when there is no such folder.
        reason: why there is none.
        baseline_uri: folder that `export` made of the user's model.
        baseline_bundle_uri: folder that `fetch` made.
        rung: the rung, for instance `amp`; names the rows.
        board: the Leaderboard so far, as JSON.
        code_version: version of the steps' code, a part of every cache key.
        run_id: tells two runs apart, so that a new run measures again.
        gpus: GPUs of the engine build and the benchmark; "0": they run on a CPU node.
        gpu_resource: Kubernetes' name of the GPU resource, for instance `nvidia.com/mig-1g.10gb`.
        gpu_node_selector: node labels of the GPU that the model will be deployed on.
        gpu_tolerations: further taints of these nodes, as Kubernetes tolerations; `nvidia.com/gpu` is tolerated anyway.
        gpu_image: image of the engine build and the benchmark.

    Returns:
        The Leaderboard with the new rows, as JSON.
    """
    with dsl.If(status == "ok", name="trained"):
        extended: Any = board
        for technique in TECHNIQUES:
            extended = compress(
                job=job,
                recipe=recipe,
                bundle_uri=bundle_uri,
                baseline_uri=baseline_uri,
                baseline_bundle_uri=baseline_bundle_uri,
                technique=str(technique),
                rung=rung,
                board=extended,
                code_version=code_version,
                run_id=run_id,
                gpus=gpus,
                gpu_resource=gpu_resource,
                gpu_node_selector=gpu_node_selector,
                gpu_tolerations=gpu_tolerations,
                gpu_image=gpu_image,
            ).output
    with dsl.Else(name="nothing-trained"):
        noted = note(board=board, job=job, rung=rung, status=status, reason=reason, made_uri=bundle_uri)
        place(noted, LIGHT)
    return dsl.OneOf(extended, noted.output)  # type: ignore[no-any-return]
