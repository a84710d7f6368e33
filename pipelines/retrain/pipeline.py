"""Scheduled retraining: new data, the champion trained again, a challenge, and a promotion if it was won.

A run that keeps the champion ends as well as one that replaces it: the reason is among its outputs.
"""

from typing import NamedTuple

from kfp import dsl

from components.amp.component import amp
from components.benchmark.component import benchmark, challenge
from components.core.contracts.job import Rung
from components.core.images import TORCH_IMAGE
from components.drift.component import drift
from components.export.component import export
from components.fetch.component import fetch
from components.leaderboard.component import judge, leaderboard
from components.publish.component import champion, production, publish
from components.report.component import report
from pipelines.ladder.prepare import keep
from pipelines.ladder.training import compress_trained
from pipelines.retrain.prepare import conclude, prepare_retraining
from pipelines.scheduling import CPU, GPU_INFER, GPU_RESOURCE, GPU_TRAIN, LIGHT, Gpu, place


class Result(NamedTuple):
    """Outputs of `retrain`."""

    outcome: str
    card_uri: str


# Nested, because KFP mixes up the branches of a pipeline with those of another one that it calls beside them.
@dsl.pipeline(name="settle", description="publishes the challenger if it won")  # type: ignore[untyped-decorator]
def settle(
    job: str,
    board: str,
    report_uri: str,
    verdict: str,
    outcome: str,
    version: str,
    source_digest: str,
    code_version: str,
    run_id: str,
) -> str:
    """Promotes the challenger or keeps the champion.

    Args:
        job: the Job as JSON.
        board: the final Leaderboard of the retrained model, as JSON.
        report_uri: folder of its report.
        verdict: `promote` or `keep`.
        outcome: of `judge`, as JSON.
        version: the champion's, which no other version than the challenger may have replaced meanwhile.
        source_digest: digest of the data and the version, for the provenance.
        code_version: version of the steps' code.
        run_id: of this run, for the provenance.

    Returns:
        The Outcome as JSON.
    """
    with dsl.If(verdict == "promote", name="promote"):
        published = publish(
            job=job,
            board=board,
            report_uri=report_uri,
            code_version=code_version,
            run_id=run_id,
            source_digest=source_digest,
            replaces=version,
            outcome=outcome,
        )
        place(published, LIGHT)
        published.set_caching_options(enable_caching=False)
        concluded = place(conclude(outcome=outcome, published_uri=published.outputs["Output"]), LIGHT)
    with dsl.Else(name="keep-the-champion"):
        kept = place(keep(value=outcome), LIGHT)
    return dsl.OneOf(concluded.output, kept.output)  # type: ignore[no-any-return]


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="contend", description="trains the champion again, compresses it, and lets it challenge the one in production"
)
def contend(
    job: str,
    recipe: str,
    training: str,
    bundle_uri: str,
    champion_uri: str,
    version: str,
    source_digest: str,
    command: str,
    code_version: str,
    run_id: str,
    started: str,
    gpus: str = "0",
    gpu_resource: str = GPU_RESOURCE,
    gpu_node_selector: dict = {},  # type: ignore[type-arg]  # noqa: B006
    gpu_tolerations: list = [],  # type: ignore[type-arg]  # noqa: B006
    gpu_image: str = TORCH_IMAGE,
) -> str:
    """From new data to a verdict.

    Args:
        job: the Job as JSON, with the champion's weights.
        recipe: the part of it that decides how models are made.
        training: the same, with how models are trained.
        bundle_uri: folder that `fetch` made: the champion's weights and the new data.
        champion_uri: folder that `champion` made: the version in production.
        version: its name.
        source_digest: digest of the data and the version, for the provenance.
        command: how to reproduce this run, for the report.
        code_version: version of the steps' code, a part of every cache key.
        run_id: tells two runs apart, so that a new run measures again.
        started: when the run began, Unix time in seconds, for its costs.
        gpus: GPUs of the engine build and the benchmarks; "0": they run on a CPU node.
        gpu_resource: Kubernetes' name of the GPU resource, for instance `nvidia.com/mig-1g.10gb`.
        gpu_node_selector: node labels of the GPU that the model is deployed on.
        gpu_tolerations: further taints of these nodes, as Kubernetes tolerations; `nvidia.com/gpu` is tolerated anyway.
        gpu_image: image of the engine build and the benchmarks.

    Returns:
        The Outcome as JSON.
    """
    gpu = Gpu(gpus, gpu_resource, gpu_node_selector, gpu_tolerations, gpu_image)
    exported = place(export(job=recipe, bundle_uri=bundle_uri, code_version=code_version), CPU)
    baseline_uri = exported.outputs["Output"]
    measured = benchmark(
        job=job,
        bundle_uri=bundle_uri,
        exported_uri=baseline_uri,
        models_uri="",
        rung="baseline",
        board="",
        code_version=code_version,
        run_id=run_id,
    )
    place(measured, GPU_INFER, gpu)
    trained = amp(job=training, bundle_uri=bundle_uri, code_version=code_version)
    place(trained, GPU_TRAIN, gpu._replace(image=TORCH_IMAGE))
    made = {name: trained.outputs[name] for name in ("recipe", "bundle_uri", "status", "reason")}
    compressed = compress_trained(
        job=job,
        baseline_uri=baseline_uri,
        baseline_bundle_uri=bundle_uri,
        rung=str(Rung.AMP),
        board=measured.outputs["Output"],
        code_version=code_version,
        run_id=run_id,
        gpus=gpus,
        gpu_resource=gpu_resource,
        gpu_node_selector=gpu_node_selector,
        gpu_tolerations=gpu_tolerations,
        gpu_image=gpu_image,
        **made,
    )
    final = leaderboard(board=compressed.output, job=job, code_version=code_version, started=started)
    place(final, LIGHT)
    board = final.outputs["Output"]
    reported = report(job=job, board=board, bundle_uri=bundle_uri, command=command, code_version=code_version)
    place(reported, LIGHT)
    challenged = challenge(
        job=job,
        bundle_uri=bundle_uri,
        champion_uri=champion_uri,
        board=board,
        code_version=code_version,
        run_id=run_id,
    )
    place(challenged, GPU_INFER, gpu)
    judged = judge(
        job=job,
        challenge=challenged.outputs["Output"],
        champion=version,
        report_uri=reported.outputs["Output"],
        code_version=code_version,
    )
    place(judged, LIGHT)
    settled = settle(
        job=job,
        board=board,
        report_uri=reported.outputs["Output"],
        verdict=judged.outputs["verdict"],
        outcome=judged.outputs["outcome"],
        version=version,
        source_digest=source_digest,
        code_version=code_version,
        run_id=run_id,
    )
    return settled.output  # type: ignore[no-any-return]


@dsl.pipeline(  # type: ignore[untyped-decorator]
    name="retrain",
    description="Trains the model in production again on new data; only one that is better beyond noise replaces it",
)
def retrain(
    job: str,
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
    """Keeps a published model fresh.

    Args:
        job: the Job, YAML or JSON text, with `publish` and `retrain`; paths in it are absolute or `s3://`. What lies at
            `data` now are the new data.
        gpus: GPUs of training, engine builds and benchmarks, for instance `1`; `0`: they run on a CPU node.
        gpu_resource: Kubernetes' name of the GPU resource; a MIG slice is `nvidia.com/mig-1g.10gb` or the like.
        gpu_node_selector: node labels of the GPU that the model is deployed on, for instance
            `{"nvidia.com/gpu.product": "NVIDIA-L4"}`.
        gpu_tolerations: further taints of these nodes, as Kubernetes tolerations; `nvidia.com/gpu` is tolerated anyway.
        gpu_image: image of engine builds and benchmarks; the `tensorrt` image for the runtime `tensorrt`.
        command: how to reproduce this run, for the report.
        code_version: version of the steps' code, a part of every cache key; empty: worked out in the first step.
        run_id: tells two runs apart, so that a new run measures again; empty: a new one.
        started: when the run began, Unix time in seconds, for its costs; empty: now.

    Returns:
        outcome: verdict, reason and numbers as JSON. card_uri: folder with the report card of the new data.
    """
    prepared = place(prepare_retraining(job=job, code_version=code_version, run_id=run_id, started=started), LIGHT)
    prepared.set_caching_options(enable_caching=False)
    out = prepared.outputs
    current = place(production(job=out["job"]), LIGHT)
    current.set_caching_options(enable_caching=False)  # what is in production changes while the job does not
    taken = champion(
        job=out["job"],
        recipe=out["recipe"],
        training=out["training"],
        source_digest=out["source_digest"],
        version=current.output,
        code_version=out["code_version"],
    )
    place(taken, LIGHT)
    fetched = fetch(
        job=taken.outputs["recipe"], source_digest=taken.outputs["source_digest"], code_version=out["code_version"]
    )
    place(fetched, LIGHT)
    bundle_uri = fetched.outputs["Output"]
    compared = drift(
        job=out["job"],
        bundle_uri=bundle_uri,
        champion_uri=taken.outputs["champion_uri"],
        code_version=out["code_version"],
    )
    place(compared, LIGHT)
    with dsl.If(compared.outputs["verdict"] == "train", name="train"):
        contended = contend(
            job=taken.outputs["job"],
            recipe=taken.outputs["recipe"],
            training=taken.outputs["training"],
            bundle_uri=bundle_uri,
            champion_uri=taken.outputs["champion_uri"],
            version=current.output,
            source_digest=taken.outputs["source_digest"],
            command=command,
            code_version=out["code_version"],
            run_id=out["run_id"],
            started=out["started"],
            gpus=gpus,
            gpu_resource=gpu_resource,
            gpu_node_selector=gpu_node_selector,
            gpu_tolerations=gpu_tolerations,
            gpu_image=gpu_image,
        )
    with dsl.Else(name="not-on-these-data"):
        kept = place(keep(value=compared.outputs["outcome"]), LIGHT)
    return Result(outcome=dsl.OneOf(contended.output, kept.output), card_uri=compared.outputs["card_uri"])
