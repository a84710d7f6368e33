"""A run's results and the published model, for other platforms."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app

_PANEL = "Other platforms"
RunFolder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of `hasten run --out`, or of a report.", show_default=False),
]


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
