"""`hasten fleet`: many jobs at once, on this machine; `hasten submit` does the same on a cluster."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app

if TYPE_CHECKING:
    from pipelines.fleet.contract import Fleet
    from pipelines.fleet.rows import Summary

EXIT_NOT_ALL_MET = 3


@app.command()
def fleet(
    fleet_file: Annotated[
        Path, typer.Argument(metavar="FLEET.yaml", help="The fleet: job files or patterns, and what they share.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the results, one a job in it. Default: `runs/<fleet name>`."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only check all jobs and show what would run.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Take up runs that finished too: what they measured counts.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the step cache. Default: `$HASTEN_CACHE` or `~/.cache/hasten`.")
    ] = None,
) -> int:
    """Climb the ladder with many models; one that fails is a row of the table and does not stop the others.

    One model after the other: a benchmark must have the machine to itself. On a cluster, `hasten submit FLEET.yaml`
    runs `parallelism` models at a time.

    **Examples**

    `hasten fleet fleet.yaml --plan`

    `hasten fleet fleet.yaml --out runs/detectors`

    **Exit codes**: 0 every model meets its goal (or, with `--plan`, the fleet is sound), 3 not every one, 2 bad input.
    """
    from components.core.s3 import cache_folder
    from pipelines.cli import result
    from pipelines.fleet.contract import read_fleet
    from pipelines.fleet.local import Place, run_fleet
    from pipelines.local.run import InterruptedRunError

    read, folders = read_fleet(fleet_file)
    if plan:
        show_plan(read, as_json=as_json)
        return 0
    place = Place(fleet_file, folders, out or Path("runs") / read.name, cache or cache_folder(), resume)
    try:
        summary = run_fleet(read, place, result.view)
    except InterruptedRunError as stop:
        name = signal.Signals(stop.signal_number).name
        print(f"hasten: stopped ({name}); the same command with --resume goes on where it stopped", file=sys.stderr)
        return 128 + stop.signal_number
    show_summary(summary, as_json=as_json)
    if not as_json:
        print(f"summary: {place.out / 'fleet.md'}")
    return exit_code(summary)


def exit_code(summary: "Summary") -> int:
    """0 if every model meets its goal, else 3."""
    from pipelines.fleet.rows import State

    return 0 if summary.count(State.MET) == len(summary.rows) else EXIT_NOT_ALL_MET


def show_summary(summary: "Summary", *, as_json: bool) -> None:
    """The table of a fleet on stdout."""
    from pipelines.fleet.rows import HEADER, cells, verdict

    if as_json:
        print(summary.model_dump_json(indent=2))
        return
    _table(HEADER, [cells(row) for row in summary.rows])
    print(verdict(summary))


def show_plan(fleet: "Fleet", *, as_json: bool) -> None:
    """What a fleet would run, on stdout."""
    if as_json:
        print(fleet.model_dump_json(indent=2, exclude_defaults=True))
        return
    rows = [
        [
            job.name,
            ", ".join(map(str, job.target.runtimes)),
            ", ".join(map(str, job.ladder.rungs)),
            str(job.ladder.mode),
            job.publish.to if job.publish else "-",
        ]
        for job in fleet.jobs
    ]
    _table(["model", "runtimes", "rungs", "mode", "publish to"], rows)
    print(f"{fleet.name}: {len(fleet.jobs)} models, {fleet.parallelism} at a time on a cluster")


def _table(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
