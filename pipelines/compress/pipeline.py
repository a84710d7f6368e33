"""The nested pipeline that every rung ends in: one model, one technique, measured rows on the board.

It takes a *bundle* (what `fetch` makes: model and data) and exports it itself, so that a rung that trains a new model
only has to hand over a new bundle. Export and surgery do not depend on the technique: with KFP's cache the second rung
gets them for nothing (`pipelines/local/cache.py` says how on a laptop; on a cluster KFP's own key already does).
"""

from kfp import dsl

from components.benchmark.component import benchmark
from components.core.images import TORCH_IMAGE
from components.engine.component import engine
from components.export.component import export
from components.fp16.component import fp16
from components.int8.component import int8
from components.surgery.component import surgery
from pipelines.ladder.prepare import keep
from pipelines.scheduling import CPU, GPU_INFER, GPU_RESOURCE, LIGHT, Gpu, place


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="compress", description="export -> surgery -> int8 or fp16 -> engine -> benchmark, of one model bundle"
)
def compress(
    job: str,
    recipe: str,
    bundle_uri: str,
    baseline_uri: str,
    technique: str,
    rung: str,
    board: str,
    baseline_bundle_uri: str = "",
    code_version: str = "",
    run_id: str = "",
    gpus: str = "0",
    gpu_resource: str = GPU_RESOURCE,
    gpu_node_selector: dict = {},  # type: ignore[type-arg]  # noqa: B006
    gpu_tolerations: list = [],  # type: ignore[type-arg]  # noqa: B006
    gpu_image: str = TORCH_IMAGE,
) -> str:
    """Compresses one model by one technique and adds what came of it to the board.

    Args:
        job: the Job as JSON; what is measured and against which goal.
        recipe: the part of the Job that decides how models are made, as JSON; all up to `engine` is cached by it.
        bundle_uri: folder that `fetch` or a training rung made: `model/` and `data/`.
        baseline_uri: folder that `export` made of the *user's* model: the speed-ups are over it.
        technique: `int8` or `fp16`; anything else: surgery alone.
        rung: the rung this is done for; names the rows.
        board: the Leaderboard so far, as JSON.
        baseline_bundle_uri: folder that `fetch` made, with the user's model, where `bundle_uri` is a training rung's;
            empty: `bundle_uri` is that folder.
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
    gpu = Gpu(gpus, gpu_resource, gpu_node_selector, gpu_tolerations, gpu_image)
    exported = export(job=recipe, bundle_uri=bundle_uri, code_version=code_version)
    surgered = surgery(job=recipe, exported_uri=exported.outputs["Output"], code_version=code_version)
    place(exported, CPU)
    place(surgered, CPU)
    made = {"job": recipe, "surgered_uri": surgered.outputs["Output"], "bundle_uri": bundle_uri}
    with dsl.If(technique == "int8"):
        in_int8 = place(int8(**made, code_version=code_version), CPU)
    with dsl.Elif(technique == "fp16"):
        in_fp16 = place(fp16(**made, code_version=code_version), CPU)
    with dsl.Else():
        as_it_is = place(keep(value=surgered.outputs["Output"]), LIGHT)
    models = dsl.OneOf(in_int8.outputs["Output"], in_fp16.outputs["Output"], as_it_is.output)
    engines = place(engine(job=recipe, models_uri=models, code_version=code_version), GPU_INFER, gpu)
    measured = benchmark(
        job=job,
        bundle_uri=baseline_bundle_uri,
        made_of_uri=bundle_uri,
        exported_uri=baseline_uri,
        models_uri=engines.outputs["Output"],
        rung=rung,
        board=board,
        code_version=code_version,
        run_id=run_id,
    )
    place(measured, GPU_INFER, gpu)
    return measured.outputs["Output"]  # type: ignore[no-any-return]
