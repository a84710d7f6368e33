"""`hasten argo`: the ladder for plain Argo Workflows."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.app import app

_PANEL = "On a Kubeflow cluster"


@app.command(rich_help_panel=_PANEL)
def argo(
    job_file: Annotated[
        Path | None,
        typer.Argument(metavar="[JOB.yaml]", help="A job to run; its files are `s3://` URIs.", show_default=False),
    ] = None,
    root: Annotated[
        str, typer.Option(help="`s3://bucket/prefix` where steps keep what they hand over.", show_default=False)
    ] = "",
    cron: Annotated[
        str, typer.Option(help="Five fields, UTC: `0 2 * * *` is every day at 2:00.", show_default=False)
    ] = "",
    mode: Annotated[str, typer.Option(help="`stop-when-met` or `exhaustive`. Default: as the job says.")] = "",
    rungs: Annotated[str, typer.Option(help="Comma-separated, e.g. `int8,fp16`. Default: as the job says.")] = "",
    name: Annotated[str, typer.Option(help="Of the WorkflowTemplate.")] = "hasten-ladder",
    namespace: Annotated[str, typer.Option(help="Of what is printed.", show_default=False)] = "",
    account: Annotated[str, typer.Option("--service-account", help="Account of the pods.")] = "hasten-runner",
    priority_class: Annotated[str, typer.Option(help="PriorityClass of the pods.", show_default=False)] = "",
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of engine builds, benchmarks and training.")] = 0,
    gpu_resource: Annotated[str, typer.Option(help="Kubernetes' name of the GPU.")] = "nvidia.com/gpu",
    gpu_product: Annotated[
        str, typer.Option(help="Node label `nvidia.com/gpu.product` of the deployment GPU.", show_default=False)
    ] = "",
    gpu_image: Annotated[str, typer.Option(help="Image of the steps on the GPU.", show_default=False)] = "",
) -> None:
    """Print the ladder for plain Argo Workflows, without Kubeflow, as YAML.

    Without a job: the WorkflowTemplate, to apply once. With a job: one run of it; with `--cron` a CronWorkflow. The
    steps are those on Kubeflow, with folders and long texts handed over in S3.

    **Examples**

    `hasten argo --root s3://models/argo --gpus 1 --gpu-product NVIDIA-L4 | kubectl apply -f -`

    `hasten argo job.yaml | kubectl create -f -`

    `hasten argo job.yaml --cron "0 2 * * *" | kubectl apply -f -`
    """
    import yaml

    from components.core.errors import UserError
    from pipelines.integration.extras import need

    need("hera", "argo")
    from pipelines.argo.workflow import Cluster, cron_workflow, workflow, workflow_template

    cluster = Cluster(
        name=name,
        namespace=namespace,
        account=account,
        priority_class=priority_class,
        gpus=gpus,
        gpu_resource=gpu_resource,
        node_selector={"nvidia.com/gpu.product": gpu_product} if gpu_product else {},
        gpu_image=gpu_image,
    )
    if root and not root.startswith("s3://"):
        raise UserError(f"--root: given {root!r}, accepted: s3://bucket/prefix")
    if job_file is None:
        if cron or mode or rungs:
            raise UserError("--cron, --mode and --rungs go with a job: hasten argo JOB.yaml")
        document = workflow_template(cluster, root)
    else:
        arguments = _arguments(job_file, root, mode, rungs)
        job_name = re.sub(r"[^a-z0-9]+", "-", arguments.pop("name"))[:50].strip("-")
        if cron:
            if len(cron.split()) != 5:
                raise UserError(f"--cron: given {cron!r}, accepted: five fields: '0 2 * * *' is every day at 2:00 UTC")
            document = cron_workflow(cluster, f"hasten-{job_name}", " ".join(cron.split()), arguments)
        else:
            document = workflow(cluster, f"hasten-{job_name}", arguments)
    typer.echo(yaml.safe_dump(document, sort_keys=False, width=120), nl=False)


def _arguments(job_file: Path, root: str, mode: str, rungs: str) -> dict[str, Any]:
    from components.core.job_file import read_job
    from pipelines.cluster.pipeline import arguments, check_reachable
    from pipelines.ladder.recipe import overridden

    job = overridden(read_job(job_file), mode, rungs)
    check_reachable(job)
    given = arguments(job, {}, f"hasten argo {job_file.name}")
    return {"name": job.name, **given} | ({"root": root} if root else {})
