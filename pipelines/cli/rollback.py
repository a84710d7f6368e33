"""`hasten rollback`: an older version back into production."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app
from pipelines.cli.integration import Endpoint, Region

if TYPE_CHECKING:
    from components.publish.rollback import Listed
    from components.publish.store import Store


@app.command()
def rollback(
    model: Annotated[
        str,
        typer.Argument(
            metavar="JOB.yaml|URI",
            help="The job that publishes it, or the published model: `s3://models/trees`, `file:///models/trees`.",
        ),
    ],
    to: Annotated[str, typer.Option(help="Version to go back to. Default: the one before.", show_default=False)] = "",
    show: Annotated[bool, typer.Option("--list", help="Only list the versions.")] = False,
    endpoint: Endpoint = "",
    region: Region = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Put an older version of a published model back into production.

    Versions are never changed, so it comes back byte for byte; every file is read and compared before the pointer
    moves. The version that leaves counts as withdrawn: it is not the next rollback's target, and retraining does not
    promote it again. `--to` takes it back all the same.

    **Examples**

    `hasten rollback job.yaml --list`

    `hasten rollback s3://models/trees --to 3f2a9c0d11e4b7a5`
    """
    from components.publish.rollback import list_versions, run_rollback

    store = _store(model, endpoint, region)
    if show:
        _show(list_versions(store), as_json=as_json)
        return
    moved = run_rollback(store, to)
    if as_json:
        print(json.dumps({"version": moved.version, "withdrawn": moved.previous, "uri": f"{store.uri}"}))
    else:
        print(f"in production: {moved.version} (withdrawn: {moved.previous})")


def _store(model: str, endpoint: str, region: str) -> "Store":
    from components.core.errors import UserError
    from components.publish.published import open_published
    from components.publish.store import open_store

    if "://" in model:
        store, version = open_published(model, endpoint or None, region or None)
        if version:
            raise UserError(f"{model} is one version; give the model's folder, {store.uri}, and --to {version}")
        return store
    from components.core.job_file import read_job

    job = read_job(Path(model))
    if job.publish is None:
        raise UserError(f"{model}: publish: the job names no place, so that there is nothing to go back to")
    return open_store(job.publish, job.name)


def _show(versions: "list[Listed]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(each) for each in versions], indent=2))
        return
    for each in versions:
        accuracy = "" if each.accuracy is None else f"{each.accuracy:.3f}"
        p50 = "" if each.p50_ms is None else f"{each.p50_ms:.3g} ms"
        print(f"{each.version:<18} {each.state:<15} {each.runtime:<12} {accuracy:<7} {p50:<9} {each.techniques}")
