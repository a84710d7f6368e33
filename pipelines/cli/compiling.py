"""`hasten compile`: the pipelines as KFP's IR YAML, for a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app


@app.command("compile")
def compile_(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the YAML files.")] = Path("manifests/pipelines"),
) -> None:
    """Compile the pipelines to KFP IR YAML: `ladder.yaml` (the main one) and `compress.yaml` (a rung's inner one).

    The same definitions run on this machine with `hasten run`. Upload a file in the Kubeflow UI, or submit it with the
    KFP SDK. The output is the same for the same code. `HASTEN_REGISTRY` and `HASTEN_TAG` choose the container images.

    **Example**

    `HASTEN_REGISTRY=registry.local/ml hasten compile --out build/pipelines`
    """
    from pipelines.compiling import compile_pipelines

    for path in compile_pipelines(out):
        typer.echo(str(path))
