"""`hasten doctor`: what this machine can build, run and time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app

if TYPE_CHECKING:
    from pipelines.doctor import Answer, Report


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of the step cache. Default: as of `hasten run`.")] = None,
) -> None:
    """Say what this machine can build, run and time, and why not.

    A runtime that can be built but not run makes candidates without numbers: "engine built, not timed: no GPU".
    """
    from components.core.s3 import cache_folder
    from pipelines.doctor import examine

    report = examine(cache or cache_folder())
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report)


def _show(report: "Report") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    facts = Table.grid(padding=(0, 2))
    for name, value in report.machine.items():
        facts.add_row(name, value or "-")
    runtimes = Table(
        "runtime", "version", "build", "run and time", "why not, or a note", box=None, padding=(0, 2, 0, 0)
    )
    for row in report.runtimes:
        why = "; ".join(dict.fromkeys(answer.why for answer in (row.build, row.run) if answer.why))
        runtimes.add_row(str(row.runtime), row.version or "-", _word(row.build), _word(row.run), escape(why))
    steps = Table("step", "works", "why not", box=None, padding=(0, 2, 0, 0))
    for step in report.steps:
        steps.add_row(step.step, _word(step.works), escape(step.works.why))
    for title, table in (("Machine", facts), ("Runtimes", runtimes), ("Steps", steps)):
        console.print(f"[bold]{title}[/bold]")
        console.print(table)
        console.print()
    for note in report.notes:
        console.print(f"- {note}", markup=False, soft_wrap=True)


def _word(answer: "Answer") -> str:
    return "[green]yes[/green]" if answer.ok else "[red]no[/red]"
