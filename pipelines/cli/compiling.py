"""`hasten compile`: the pipelines and steps as YAML, for a cluster."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app


class Form(StrEnum):
    """What is written."""

    PIPELINES = "pipelines"
    RESOURCES = "resources"
    COMPONENTS = "components"


@app.command("compile")
def compile_(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the YAML files.")] = Path("manifests/pipelines"),
    form: Annotated[
        Form,
        typer.Option(
            help="`pipelines`: KFP's IR, to upload. `resources`: Pipeline and PipelineVersion for `kubectl apply`. "
            "`components`: a file a step, for pipelines of your own."
        ),
    ] = Form.PIPELINES,
    namespace: Annotated[str, typer.Option(help="Namespace of the resources.")] = "kubeflow",
) -> None:
    """Compile the pipelines to KFP IR YAML: `ladder.yaml` (the main one) and `compress.yaml` (a rung's inner one).

    The same definitions run on this machine with `hasten run`. Upload a file in the Kubeflow UI, or submit it with
    `hasten submit`. The output is the same for the same code. `HASTEN_REGISTRY` and `HASTEN_TAG` choose the images.

    **Examples**

    `HASTEN_REGISTRY=registry.local/ml hasten compile --out build/pipelines`

    `hasten compile --form resources --namespace kubeflow --out build/resources`
    """
    from pipelines.compiling import compile_components, compile_pipelines, compile_resources

    if form is Form.RESOURCES:
        paths = compile_resources(out, namespace)
    else:
        paths = (compile_pipelines if form is Form.PIPELINES else compile_components)(out)
    for path in paths:
        typer.echo(str(path))
