"""The report of surgery in a terminal: what the runtime says, what was done to which node, what is left and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from components.surgery.report import Record, SurgeryReport, error_words, records_together, row_name, verdict_words
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
        if records := _worth_showing(report):
            console.print(_done(records))
        elif report.records:
            console.print("  Nothing could be done; the graph is untouched.")
        elif report.after is not None:
            console.print("  No pattern of the table was found; the graph is untouched.")
        if report.refused:
            console.print(_left(report))
        if out is not None and report.after is not None:
            console.print(f"  model:  {out / target / 'model.onnx'}", markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"report: {out / 'surgery_report.md'}", markup=False, soft_wrap=True)


def _worth_showing(report: SurgeryReport) -> list[Record]:
    """What was done, and what was not, unless the table of what is left tells it with its reason."""
    told = {left.finding.node for left in report.refused}
    return records_together(
        [record for record in report.records if record.outcome is not Outcome.REFUSED or record.node not in told]
    )


def _done(records: Sequence[Record]) -> Table:
    table = Table(title="What was done", title_justify="left")
    table.add_column("node", overflow="fold")
    table.add_column("row", justify="right")
    table.add_column("what was done", overflow="fold")
    table.add_column("max error", justify="right")
    for record in records[:_ROWS]:
        style = _STYLES[record.outcome]
        error = "" if record.outcome is Outcome.REFUSED else error_words(record)
        table.add_row(Text(record.node), str(record.row), Text(_what(record), style=style), error)
    _more(table, len(records))
    return table


def _what(record: Record) -> str:
    if record.outcome is Outcome.DONE:
        return record.what
    if record.outcome is Outcome.REFUSED:
        return f"{record.outcome}: {record.why}; {record.what}"
    return f"{record.outcome}: {record.what}; {record.note}" if record.note else f"{record.outcome}: {record.what}"


def _left(report: SurgeryReport) -> Table:
    table = Table(title="What is left and why" if report.after else "What is refused", title_justify="left")
    table.add_column("node", overflow="fold")
    table.add_column("row", justify="right")
    table.add_column("what and why", overflow="fold")
    table.add_column("way out", overflow="fold")
    lines = report.refused_together
    for left in lines[:_ROWS]:
        why = f"{left.finding.rule}: {left.why}" if left.why else left.finding.rule
        table.add_row(Text(left.finding.node), row_name(left.finding), Text(why), Text(left.way_out))
    _more(table, len(lines))
    return table


def _more(table: Table, count: int) -> None:
    if count > _ROWS:
        table.add_row(f"and {count - _ROWS} more", "", "in surgery_report.md", "")
