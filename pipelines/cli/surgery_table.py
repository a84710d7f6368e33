"""The report of surgery in a terminal: what the runtime says, what was done to which node, what is left and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from components.surgery.report import SurgeryReport, error_words, row_name, verdict_words
from components.surgery.surgery import Outcome

if TYPE_CHECKING:
    from rich.console import Console

    from components.core.contracts.job import Runtime

_ROWS = 30
_STYLES = {Outcome.DONE: "green", Outcome.REFUSED: "yellow", Outcome.ROLLED_BACK: "red"}


def show(console: "Console", reports: "Mapping[Runtime, SurgeryReport]", out: Path | None) -> None:
    """Prints a section a runtime."""
    for target, report in reports.items():
        console.print(Text(str(target), style="bold"))
        for when, verdict in (("before", report.before), ("after", report.after)):
            if verdict is not None:
                style = "green" if verdict.accepted else "red"
                console.print(Text(f"  {when + ':':<8}{verdict_words(verdict)}", style=style), soft_wrap=True)
        if report.records:
            console.print(_done(report))
        elif report.after is not None:
            console.print("  No pattern of the table was found; the graph is untouched.")
        if report.refused:
            console.print(_left(report))
        if out is not None and report.after is not None:
            console.print(f"  model:  {out / target / 'model.onnx'}", markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"report: {out / 'surgery_report.md'}", markup=False, soft_wrap=True)


def _done(report: SurgeryReport) -> Table:
    table = Table(title="What was done", title_justify="left")
    table.add_column("node", overflow="fold")
    table.add_column("row", justify="right")
    table.add_column("what was done", overflow="fold")
    table.add_column("max error", justify="right")
    for record in report.records[:_ROWS]:
        what = f"{record.outcome}: {record.what}" if record.outcome is not Outcome.DONE else record.what
        style = _STYLES[record.outcome]
        table.add_row(Text(record.node), str(record.row), Text(what, style=style), error_words(record))
    _more(table, len(report.records))
    return table


def _left(report: SurgeryReport) -> Table:
    table = Table(title="What is left and why" if report.after else "What is refused", title_justify="left")
    table.add_column("node", overflow="fold")
    table.add_column("row", justify="right")
    table.add_column("what and why", overflow="fold")
    table.add_column("way out", overflow="fold")
    for left in report.refused[:_ROWS]:
        why = f"{left.finding.rule}: {left.why}" if left.why else left.finding.rule
        table.add_row(Text(left.finding.node), row_name(left.finding), Text(why), Text(left.way_out))
    _more(table, len(report.refused))
    return table


def _more(table: Table, count: int) -> None:
    if count > _ROWS:
        table.add_row(f"and {count - _ROWS} more", "", "in surgery_report.md", "")
