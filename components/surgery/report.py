"""What surgery did to a model, for people and for the next step."""

from collections.abc import Mapping

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import Runtime
from components.core.formats import markdown
from components.surgery.surgery import Outcome


class Record(Contract):
    """One change, or one pattern that was left."""

    row: int = Field(description="row of the surgery table; 0 is constant folding")
    surgery: str
    node: str
    why: str = Field(description="why the pattern is a problem, or why it was refused")
    what: str = Field(description="what was done, or the way out")
    outcome: Outcome
    max_error: float | None = Field(
        default=None, description="largest relative error against the graph before; None: not compared"
    )
    note: str = ""


class SurgeryReport(Contract):
    """Everything that was done to one model for one runtime."""

    target: Runtime
    records: list[Record]
    nodes_before: int
    nodes_after: int
    seconds: float
    end_to_end: dict[str, float] = Field(
        default_factory=dict,
        description="relative error of each output of the whole model on random input; equal scores may swap places",
    )

    @property
    def done(self) -> list[Record]:
        """The records of what was changed."""
        return [record for record in self.records if record.outcome is Outcome.DONE]

    @property
    def left(self) -> list[Record]:
        """The records of what was not changed, with the reason."""
        return [record for record in self.records if record.outcome is not Outcome.DONE]

    def summary(self) -> dict[str, object]:
        """The few facts that a leaderboard row carries."""
        errors = [record.max_error for record in self.done if record.max_error is not None]
        return {
            "rows": sorted({record.row for record in self.done}),
            "left": [f"row {record.row}, {record.node}: {record.why}" for record in self.left],
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
            "max_error": max(errors, default=0.0),
        }


def to_markdown(reports: Mapping[str, SurgeryReport]) -> str:
    """The reports as a page, one section a variant."""
    lines = ["# Surgery", ""]
    for name, report in reports.items():
        lines += [
            f"## {markdown(name)}",
            "",
            f"Target {report.target}: {report.nodes_before} nodes before, {report.nodes_after} after, "
            f"{report.seconds:.1f} s.",
            "",
        ]
        if not report.records:
            lines += ["No pattern of the table was found; the graph is untouched.", ""]
            continue
        lines += ["| row | surgery | node | outcome | why | what | max error |", "|---|---|---|---|---|---|---|"]
        lines += [_row(record) for record in report.records]
        if report.end_to_end:
            errors = ", ".join(f"{markdown(output)} {error:.1e}" for output, error in report.end_to_end.items())
            lines += ["", f"Whole model on random input, relative error of each output: {errors}."]
        lines.append("")
    return "\n".join(lines)


def _row(record: Record) -> str:
    error = "not compared" if record.max_error is None else f"{record.max_error:.1e}"
    what = f"{record.what} ({record.note})" if record.note else record.what
    texts = (record.row, record.surgery, record.node, record.outcome, record.why, what, error)
    return "| " + " | ".join(markdown(text) for text in texts) + " |"
