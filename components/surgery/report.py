"""What surgery did to a model and what its runtime says of it, for people and for the next step."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import Runtime
from components.core.formats import markdown
from components.surgery.diagnosis.verdict import Finding, Verdict
from components.surgery.surgery import Outcome

_NAMED = 3
"""Nodes of one cause that are named."""
_LISTED = 50
"""Findings of one kind that a page lists; the JSON has all."""


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


class Left(Contract):
    """What the runtime still refuses after surgery, and why it was left."""

    finding: Finding
    why: str = Field(description="why no surgery helped; empty where none is known")
    way_out: str


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
    before: Verdict | None = Field(default=None, description="what the runtime says of the model as it was")
    after: Verdict | None = Field(default=None, description="what it says of the model that came out")
    plan: str = Field(
        default="",
        description="where TensorRT refuses it as a whole: the run plan beside the model, in a few words, or why none",
    )

    @property
    def done(self) -> list[Record]:
        """The records of what was changed."""
        return [record for record in self.records if record.outcome is Outcome.DONE]

    @property
    def left(self) -> list[Record]:
        """The records of what was not changed, with the reason."""
        return [record for record in self.records if record.outcome is not Outcome.DONE]

    @property
    def refused(self) -> list[Left]:
        """What keeps the model out of its runtime at the end; of an operation that was only a diagnosis, at all."""
        last = self.after or self.before
        by_node = {record.node: record for record in self.left}
        return [_left(finding, by_node.get(finding.node)) for finding in (last.refusals if last else [])]

    @property
    def refused_together(self) -> list[Left]:
        """`refused`, one for all nodes of the same cause; it names the first few of them."""
        groups: dict[tuple[object, ...], list[Left]] = {}
        for left in self.refused:
            groups.setdefault((left.finding.row, left.finding.rule, left.why, left.way_out), []).append(left)
        return [_together(group) for group in groups.values()]

    def summary(self) -> dict[str, object]:
        """The few facts that a leaderboard row carries."""
        errors = [record.max_error for record in self.done if record.max_error is not None]
        verdicts = {"before": self.before, "after": self.after}
        return {
            "rows": sorted({record.row for record in self.done}),
            "left": [f"row {record.row}, {record.node}: {record.why}" for record in self.left],
            "nodes_before": self.nodes_before,
            "nodes_after": self.nodes_after,
            "max_error": max(errors, default=0.0),
            "verdict": {name: _brief(verdict) for name, verdict in verdicts.items() if verdict},
        } | ({"plan": self.plan} if self.plan else {})


def _left(finding: Finding, record: Record | None) -> Left:
    if record is None:
        return Left(finding=finding, why="", way_out=finding.way_out)
    why = record.why if record.outcome is Outcome.REFUSED else f"{record.what}: {record.note or 'taken back'}"
    return Left(finding=finding, why=why, way_out=record.what if record.outcome is Outcome.REFUSED else finding.way_out)


def _together(group: Sequence[Left]) -> Left:
    names = few([left.finding.node for left in group])
    return group[0].model_copy(update={"finding": group[0].finding.model_copy(update={"node": names})})


def few(names: Sequence[str]) -> str:
    """``a, b, c and 7 more``."""
    named = list(dict.fromkeys(names))
    rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + rest


def records_together(records: Sequence[Record]) -> list[Record]:
    """The records, those that differ in their node only as one, which names the first few and has the largest error."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        proven = record.max_error is not None
        key = (record.row, record.outcome, record.why, record.what, record.note, proven)
        groups.setdefault(key, []).append(record)
    return [
        group[0].model_copy(
            update={
                "node": few([record.node for record in group]),
                "max_error": max((r.max_error for r in group if r.max_error is not None), default=None),
            }
        )
        for group in groups.values()
    ]


def _brief(verdict: Verdict) -> dict[str, object]:
    facts = {"tool": verdict.tool, "version": verdict.version, "parses": verdict.parses, "builds": verdict.builds}
    nodes = [f"{finding.node}: {finding.rule}" for finding in verdict.refusals[:3]]
    return facts | {"stage": str(verdict.stage), "findings": len(verdict.refusals), "first": nodes}


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
            *_verdict_lines(report),
            *_operation_lines(report),
            *_finding_lines(report),
        ]
    return "\n".join(lines)


def verdict_words(verdict: Verdict) -> str:
    """``tensorrt_rtx 1.7.1: does not parse (3 findings), 0.8 s``."""
    note = f"; {verdict.note}" if verdict.note else ""
    return f"{verdict.tool} {verdict.version}".strip() + f": {verdict.brief()}, {verdict.seconds:.1f} s{note}"


def _verdict_lines(report: SurgeryReport) -> list[str]:
    named = [("before", report.before), ("after", report.after)]
    lines = [f"- {when}: {markdown(verdict_words(verdict))}" for when, verdict in named if verdict]
    lines += [f"- in parts: {markdown(report.plan)}"] if report.plan else []
    return [*lines, ""] if lines else []


def _operation_lines(report: SurgeryReport) -> list[str]:
    if not report.records:
        if report.before and not report.after:
            return []
        return ["No pattern of the table was found; the graph is untouched.", ""]
    lines = ["| row | surgery | node | outcome | why | what | max error |", "|---|---|---|---|---|---|---|"]
    lines += [_row(record) for record in records_together(report.records)]
    if report.end_to_end:
        errors = ", ".join(f"{markdown(output)} {error:.1e}" for output, error in report.end_to_end.items())
        lines += ["", f"Whole model on random input, relative error of each output: {errors}."]
    return [*lines, ""]


def _finding_lines(report: SurgeryReport) -> list[str]:
    lines: list[str] = []
    if report.before and report.before.findings:
        lines += [f"### What {report.target} refused before", ""]
        lines += _table(
            ("node", "row", "what", "way out", "its own words", "how it is known"),
            [
                (finding.node, row_name(finding), finding.rule, finding.way_out, finding.words, finding.seen)
                for finding in report.before.findings
            ],
        )
    if report.after and report.refused:
        lines += ["### What is left and why", ""]
        lines += _table(
            ("node", "row", "what", "why it was left", "way out"),
            [
                (left.finding.node, row_name(left.finding), left.finding.rule, left.why or "-", left.way_out)
                for left in report.refused_together
            ],
        )
    return lines


def row_name(finding: Finding) -> str:
    """The row's number, or a dash where there is none."""
    return "-" if finding.row is None else str(finding.row)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(markdown(cell) for cell in row) + " |" for row in rows[:_LISTED]]
    if len(rows) > _LISTED:
        lines += ["", f"and {len(rows) - _LISTED} more."]
    return [*lines, ""]


def _row(record: Record) -> str:
    what = f"{record.what} ({record.note})" if record.note else record.what
    texts = (record.row, record.surgery, record.node, record.outcome, record.why, what, error_words(record))
    return "| " + " | ".join(markdown(text) for text in texts) + " |"


def error_words(record: Record) -> str:
    """The largest error of a change as text."""
    return "not compared" if record.max_error is None else f"{record.max_error:.1e}"
