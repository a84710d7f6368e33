"""`hasten reconcile`: schedules as they are declared in Git."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app
from pipelines.cli.cluster import PANEL, CaCert, Host, Json, Namespace, TokenFile


@app.command(rich_help_panel=PANEL)
def reconcile(
    schedules_file: Annotated[
        Path, typer.Argument(metavar="SCHEDULES.yaml", help="Job files, each with a cron expression.")
    ],
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = None,
    ca_cert: CaCert = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Json = False,
) -> None:
    """Make the server's schedules equal to what a file declares; done again, it changes nothing.

    A schedule that was declared and is not any more is deleted; one that was made by `hasten schedule` and is not
    declared stays. `manifests/schedules` runs it in the cluster every few minutes.

    **Example**

    `hasten reconcile manifests/schedules/schedules.yaml --host http://localhost:8080 --dry-run`
    """
    from pipelines.cluster.connection import Server, connect
    from pipelines.cluster.declared import read_declared
    from pipelines.cluster.declared import reconcile as make_equal

    wanted = read_declared(schedules_file)
    server = Server.of(host, namespace, token_file, ca_cert)
    done = make_equal(connect(server), server, wanted, dry_run=dry_run)
    if as_json:
        print(json.dumps([asdict(each) for each in done]))
        return
    for each in done:
        print(f"{each.name:<30} {each.action:<10} {each.cron}")
    if not done:
        print("no schedules are declared")
