"""A run's results and the published model, for other platforms."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app

_PANEL = "Other platforms"
RunFolder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of `hasten run --out`, or of a report.", show_default=False),
]
PublishedModel = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="A published model, e.g. `s3://models/trees`, or one of its versions (`.../versions/<version>`).",
        show_default=False,
    ),
]
Endpoint = Annotated[str, typer.Option(help="S3 endpoint, for stores other than AWS.", show_default=False)]
Region = Annotated[str, typer.Option(help="Region of the bucket.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


@app.command(rich_help_panel=_PANEL)
def metrics(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File `*.prom`, replaced as a whole. Default: stdout.", show_default=False),
    ] = None,
) -> None:
    """Write a run's results in Prometheus' text format, for the node exporter's textfile collector.

    One job a file: a new run's file replaces the last one's.

    **Examples**

    `hasten metrics runs/trees --out /var/lib/node_exporter/hasten-trees.prom`

    `hasten metrics runs/trees | curl --data-binary @- http://pushgateway:9091/metrics/job/hasten/model/trees`
    """
    from pipelines.integration.extras import need
    from pipelines.integration.results import read_results

    need("prometheus_client", "prometheus")
    from pipelines.integration.prometheus import as_text, write_textfile

    results = read_results(run)
    if out is None:
        typer.echo(as_text(results), nl=False)
    else:
        write_textfile(results, out)
        typer.echo(str(out))


@app.command(rich_help_panel=_PANEL)
def register(
    model: PublishedModel,
    registry: Annotated[
        str,
        typer.Option(
            envvar="HASTEN_REGISTRY_URL",
            help="Address of the Model Registry, e.g. `http://localhost:8080`.",
            show_default=False,
        ),
    ],
    endpoint: Endpoint = "",
    region: Region = "",
    as_json: Json = False,
) -> None:
    """Register a published model in Kubeflow's Model Registry: in production, or the version that the URI names.

    A job with `publish.registry` does it by itself. The same content is one version, however often it is registered.
    `HASTEN_REGISTRY_TOKEN` is a bearer token, `HASTEN_REGISTRY_CA` a file with CA certificates.

    **Example**

    `hasten register s3://models/trees --registry http://localhost:8080`
    """
    from components.publish.published import read_published
    from components.publish.registry import Registry
    from components.publish.registry import register as enter

    server = Registry.of(registry)
    published = read_published(model, endpoint or None, region or None)
    done = enter(published, server)
    if as_json:
        typer.echo(json.dumps(done._asdict()))
    else:
        state = "registered" if done.new else "was registered before"
        typer.echo(f"{published.manifest.name} {published.manifest.version} {state}: version {done.version_id}")


@app.command(rich_help_panel=_PANEL)
def kserve(
    model: PublishedModel,
    name: Annotated[str, typer.Option(help="Of the service. Default: the model's.", show_default=False)] = "",
    namespace: Annotated[str, typer.Option(help="Of the service.", show_default=False)] = "",
    runtime: Annotated[str, typer.Option(help="KServe's serving runtime that is Triton.")] = "kserve-tritonserver",
    account: Annotated[
        str, typer.Option("--service-account", help="Account that may read the store.", show_default=False)
    ] = "",
    cpu: Annotated[str, typer.Option(help="CPUs, as Kubernetes counts them.")] = "2",
    memory: Annotated[str, typer.Option(help="Memory.")] = "4Gi",
    gpus: Annotated[int, typer.Option(min=0, help="GPUs; 0: on a CPU node.")] = 0,
    gpu_resource: Annotated[str, typer.Option(help="Kubernetes' name of the GPU.")] = "nvidia.com/gpu",
    gpu_product: Annotated[
        str, typer.Option(help="Node label `nvidia.com/gpu.product`: the GPU of the engine.", show_default=False)
    ] = "",
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Serve the ONNX file that the engine was built from.")
    ] = False,
    endpoint: Endpoint = "",
    region: Region = "",
) -> None:
    """Print KServe's InferenceService of a published model, as YAML: Triton on the version's model repository.

    **Examples**

    `hasten kserve s3://models/trees --service-account models-reader | kubectl apply -f -`

    `hasten kserve s3://models/trees --gpus 1 --gpu-product NVIDIA-L4`
    """
    import yaml

    from components.publish.published import read_published
    from pipelines.integration.kserve import Serving, inference_service

    serving = Serving(
        name=name,
        namespace=namespace,
        runtime=runtime,
        account=account,
        cpu=cpu,
        memory=memory,
        gpus=gpus,
        gpu_resource=gpu_resource,
        node_selector={"nvidia.com/gpu.product": gpu_product} if gpu_product else {},
        fallback=fallback,
    )
    document = inference_service(read_published(model, endpoint or None, region or None), serving)
    typer.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


@app.command(rich_help_panel=_PANEL)
def mlflow(
    run: RunFolder,
    tracking_uri: Annotated[
        str,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="Address of the MLflow server.", show_default=False),
    ],
    experiment: Annotated[str, typer.Option(help="Made where it is not there.")] = "hasten",
    model: Annotated[
        str, typer.Option("--published", help="URI that the run published to: registered as a version.")
    ] = "",
    endpoint: Endpoint = "",
    region: Region = "",
    as_json: Json = False,
) -> None:
    """Log a run to an MLflow server: candidates as nested runs, the report as artifacts, the winner as a version.

    A run is logged once, however often this is called.

    **Example**

    `hasten mlflow runs/trees --tracking-uri http://localhost:5000 --published s3://models/trees`
    """
    from pipelines.integration.extras import need
    from pipelines.integration.results import read_results

    need("mlflow", "mlflow")
    from components.publish.published import read_published
    from pipelines.integration.mlflow import log_results

    results = read_results(run)
    published = read_published(model, endpoint or None, region or None) if model else None
    done = log_results(results, tracking_uri, experiment, published)
    if as_json:
        typer.echo(json.dumps(done._asdict()))
    else:
        version = f", version {done.version}" if done.version else ""
        typer.echo(f"{results.board.job}: {'logged' if done.new else 'was logged before'}: run {done.run_id}{version}")
