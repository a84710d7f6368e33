"""The ladder: the main pipeline. It passes the Leaderboard from rung to rung and stops climbing when the goal is met.

A rung is a function that takes the board and gives the board back (`_climb`). Two compress the user's own model; a rung
that trains a new one makes a bundle of it first, and `compress_trained` compresses that bundle once a technique.
"""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import PipelineTask
from kfp.dsl.pipeline_channel import PipelineChannel

from components.amp.component import amp
from components.backbone.component import backbone
from components.benchmark.component import benchmark
from components.core.contracts.job import Rung
from components.core.images import TORCH_IMAGE
from components.distill.component import distill
from components.export.component import export
from components.family.component import family
from components.fetch.component import fetch
from components.leaderboard.component import decide, leaderboard
from components.publish.component import publish
from components.report.component import report
from pipelines.compress.pipeline import compress
from pipelines.ladder.prepare import destination, keep, pass_on, prepare
from pipelines.ladder.training import compress_trained
from pipelines.scheduling import CPU, GPU_INFER, GPU_RESOURCE, GPU_SEARCH, GPU_TRAIN, LIGHT, Gpu, place

TRAINERS = {Rung.AMP: amp, Rung.BACKBONE: backbone, Rung.FAMILY: family, Rung.DISTILL: distill}
"""Rungs that train: each takes the job and the bundle, and makes a new bundle or says why not."""
SEARCHERS = (Rung.BACKBONE, Rung.FAMILY)
"""Those of them that choose what to train by the goal, which is part of their job then."""


class Result(NamedTuple):
    """Outputs of the ladder."""

    board: str
    report_uri: str
    published_uri: str


class _Run(NamedTuple):
    """What every rung needs."""

    job: PipelineChannel
    recipe: PipelineChannel
    training: PipelineChannel
    search: PipelineChannel
    distilling: PipelineChannel
    bundle_uri: PipelineChannel
    baseline_uri: PipelineChannel
    code_version: PipelineChannel
    run_id: PipelineChannel
    started: PipelineChannel
    gpu: Gpu


def _climb(run: _Run, rung: Rung, board: PipelineChannel) -> PipelineChannel:
    decision = decide(
        board=board,
        job=run.job,
        rung=str(rung),
        code_version=run.code_version,
        started=run.started,
        training=_told(run, rung),
        bundle_uri=run.bundle_uri,
        run_id=run.run_id,
    )
    place(decision, LIGHT)
    decision.set_caching_options(enable_caching=False)  # quick, and its event tells the live view where the run is
    decided = decision.outputs
    with dsl.If(decided["answer"] == "climb", name=f"climb-{rung}"):
        climbed = _trained(run, rung, board, decided["training"]) if rung.trains else _compressed(run, rung, board)
    with dsl.Else(name=f"skip-{rung}"):
        passed_on = place(pass_on(board=board, job=run.job, rung=str(rung), reason=decided["reason"]), LIGHT)
    return dsl.OneOf(climbed.output, passed_on.output)


def _told(run: _Run, rung: Rung) -> PipelineChannel | str:
    """The job of a rung that trains: what only one rung reads is in no other one's cache key."""
    if not rung.trains:
        return ""
    if rung in SEARCHERS:
        return run.search
    return run.distilling if rung is Rung.DISTILL else run.training


def _compressed(run: _Run, rung: Rung, board: PipelineChannel) -> PipelineTask:
    return compress(
        **_measured_against(run, rung, board), recipe=run.recipe, bundle_uri=run.bundle_uri, technique=str(rung)
    )


def _trained(run: _Run, rung: Rung, board: PipelineChannel, training: PipelineChannel) -> PipelineTask:
    trained = TRAINERS[rung](job=training, bundle_uri=run.bundle_uri, code_version=run.code_version)
    place(trained, GPU_SEARCH if rung in SEARCHERS else GPU_TRAIN, run.gpu._replace(image=TORCH_IMAGE))
    made = {name: trained.outputs[name] for name in ("recipe", "bundle_uri", "status", "reason")}
    return compress_trained(**_measured_against(run, rung, board), **made)


def _measured_against(run: _Run, rung: Rung, board: PipelineChannel) -> dict[str, Any]:
    """What every rung's candidates are measured with: the user's own model, on the GPU of the run."""
    return {
        "job": run.job,
        "baseline_uri": run.baseline_uri,
        "baseline_bundle_uri": run.bundle_uri,
        "rung": str(rung),
        "board": board,
        "code_version": run.code_version,
        "run_id": run.run_id,
        "gpus": run.gpu.count,
        "gpu_resource": run.gpu.resource,
        "gpu_node_selector": run.gpu.node_selector,
        "gpu_tolerations": run.gpu.tolerations,
        "gpu_image": run.gpu.image,
    }


def _publish(
    run: _Run, board: PipelineChannel, report_uri: PipelineChannel, source_digest: PipelineChannel
) -> PipelineChannel:
    where = place(destination(board=board, job=run.job), LIGHT)
    with dsl.If(where.output == "publish", name="publish"):
        published = publish(
            job=run.job,
            board=board,
            report_uri=report_uri,
            code_version=run.code_version,
            run_id=run.run_id,
            source_digest=source_digest,
        )
        place(published, LIGHT)
        published.set_caching_options(enable_caching=False)  # doing it twice changes nothing, and the store may have
    with dsl.Else(name="keep-to-oneself"):
        nothing = place(keep(value=""), LIGHT)
    return dsl.OneOf(published.outputs["Output"], nothing.output)


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="ladder", description="Climbs from the cheapest technique up until the job's goal is met; publishes the winner"
)
def ladder(
    job: str,
    mode: str = "",
    rungs: str = "",
    gpus: str = "0",
    gpu_resource: str = GPU_RESOURCE,
    gpu_node_selector: dict = {},  # type: ignore[type-arg]  # noqa: B006
    gpu_tolerations: list = [],  # type: ignore[type-arg]  # noqa: B006
    gpu_image: str = TORCH_IMAGE,
    command: str = "",
    code_version: str = "",
    run_id: str = "",
    started: str = "",
) -> Result:
    """Makes a trained model fast enough to ship.

    Args:
        job: the Job, YAML or JSON text; paths in it are absolute or `s3://`.
        mode: `stop-when-met` or `exhaustive`; empty: as the job says.
        rungs: comma-separated, for instance `int8,fp16`; empty: as the job says.
        gpus: GPUs of engine builds and benchmarks, for instance `1`; `0`: they run on a CPU node.
        gpu_resource: Kubernetes' name of the GPU resource; a MIG slice is `nvidia.com/mig-1g.10gb` or the like.
        gpu_node_selector: node labels of the GPU that the model will be deployed on, for instance
            `{"nvidia.com/gpu.product": "NVIDIA-L4"}`.
        gpu_tolerations: further taints of these nodes, as Kubernetes tolerations; `nvidia.com/gpu` is tolerated anyway.
        gpu_image: image of engine builds and benchmarks; the `tensorrt` image for the runtime `tensorrt`.
        command: how to reproduce this run, for the report.
        code_version: version of the steps' code, a part of every cache key; empty: worked out in the first step.
        run_id: tells two runs apart, so that a new run measures again; empty: a new one.
        started: when the run began, Unix time in seconds, for its costs and its budget; empty: now.

    Returns:
        board: the final Leaderboard as JSON. report_uri: folder with leaderboard.json, report.md and report.html.
        published_uri: the published version, or empty.
    """
    prepared = prepare(job=job, mode=mode, rungs=rungs, code_version=code_version, run_id=run_id, started=started)
    place(prepared, LIGHT)
    prepared.set_caching_options(enable_caching=False)
    out = prepared.outputs
    fetched = fetch(job=out["recipe"], source_digest=out["source_digest"], code_version=out["code_version"])
    place(fetched, LIGHT)
    bundle_uri = fetched.outputs["Output"]
    exported = export(job=out["recipe"], bundle_uri=bundle_uri, code_version=out["code_version"])
    place(exported, CPU)
    run = _Run(
        job=out["job"],
        recipe=out["recipe"],
        training=out["training"],
        search=out["search"],
        distilling=out["distilling"],
        bundle_uri=bundle_uri,
        baseline_uri=exported.outputs["Output"],
        code_version=out["code_version"],
        run_id=out["run_id"],
        started=out["started"],
        gpu=Gpu(gpus, gpu_resource, gpu_node_selector, gpu_tolerations, gpu_image),
    )
    measured = benchmark(
        job=run.job,
        bundle_uri=run.bundle_uri,
        exported_uri=run.baseline_uri,
        models_uri="",
        rung="baseline",
        board="",
        code_version=run.code_version,
        run_id=run.run_id,
    )
    board = place(measured, GPU_INFER, run.gpu).outputs["Output"]
    for rung in Rung:
        board = _climb(run, rung, board)
    final = leaderboard(board=board, job=run.job, code_version=run.code_version, started=run.started)
    place(final, LIGHT)
    reported = report(
        job=run.job,
        board=final.outputs["Output"],
        bundle_uri=run.bundle_uri,
        command=command,
        code_version=run.code_version,
    )
    place(reported, LIGHT)
    published = _publish(run, final.outputs["Output"], reported.outputs["Output"], out["source_digest"])
    return Result(board=final.outputs["Output"], report_uri=reported.outputs["Output"], published_uri=published)
