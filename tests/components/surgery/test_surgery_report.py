"""The report: what was done, what the runtime said before and after, what is left and why."""

import pytest

from components.core.contracts.job import Runtime
from components.surgery.diagnosis.verdict import Finding, Seen, Stage, Verdict
from components.surgery.report import Record, SurgeryReport, records_together, to_markdown
from components.surgery.surgery import Outcome

RTX = Runtime.TENSORRT_RTX


def finding(node="nms", row: int | None = 12, **fields):
    return Finding(node=node, row=row, rule="a | rule", way_out="a way out", words="its words", **fields)


def verdict(*findings, stage=Stage.OK, builds: bool | None = True):
    fields = {"parses": stage is not Stage.PARSE, "builds": builds, "stage": stage, "findings": list(findings)}
    return Verdict(target=RTX, tool="tensorrt_rtx", version="1.7.1", seconds=0.25, **fields)


def record(node="nms", outcome=Outcome.REFUSED, row=12):
    return Record(
        row=row, surgery="NMS", node=node, why="too large", what="make it small", outcome=outcome, note="note"
    )


def report(*records, **verdicts):
    return SurgeryReport(target=RTX, records=list(records), nodes_before=9, nodes_after=7, seconds=1, **verdicts)


def test_what_is_left_has_the_reason_of_the_surgery_that_refused():
    refused = verdict(finding(), finding("other", None), stage=Stage.BUILD, builds=False)
    first, second = report(record(), before=refused, after=refused).refused
    assert (first.why, first.way_out) == ("too large", "make it small")
    assert (second.why, second.way_out) == ("", "a way out")


def test_a_change_that_was_taken_back_is_a_reason_too():
    refused = verdict(finding(), stage=Stage.BUILD, builds=False)
    (left,) = report(record(outcome=Outcome.ROLLED_BACK), before=refused, after=refused).refused
    assert left.why == "make it small: note"
    assert left.way_out == "a way out"


def test_a_doubtful_finding_is_no_refusal():
    doubtful = verdict(finding(refused=False))
    assert doubtful.accepted
    assert report(before=doubtful, after=doubtful).refused == []


def test_a_dry_run_counts_what_was_found_before():
    refused = verdict(finding(), stage=Stage.PARSE, builds=None)
    made = report(before=refused)
    assert [left.finding.node for left in made.refused] == ["nms"]
    page = to_markdown({"it": made})
    assert "untouched" not in page
    assert "### What is left and why" not in page
    assert "| nms | 12 | a \\| rule | a way out | its words | said |" in page


def test_the_page_says_before_after_and_what_is_left():
    refused = verdict(finding(), stage=Stage.BUILD, builds=False)
    page = to_markdown({"it": report(record(), before=refused, after=refused)})
    assert "- before: tensorrt\\_rtx 1.7.1: parses, does not build (1 finding), 0.2 s" in page
    assert "- after: tensorrt\\_rtx" in page
    assert "| nms | 12 | a \\| rule | too large | make it small |" in page


def test_long_lists_are_cut_on_the_page_and_not_in_the_report():
    many = verdict(*(finding(f"node{n}") for n in range(80)), stage=Stage.PARSE, builds=None)
    made = report(before=many)
    assert "and 30 more." in to_markdown({"it": made})
    assert len(made.model_dump(mode="json")["before"]["findings"]) == 80


def test_one_cause_at_many_nodes_is_said_once():
    refused = verdict(*(finding(f"nms{n}") for n in range(10)), finding("other", 15), stage=Stage.BUILD, builds=False)
    records = [record(f"nms{n}") for n in range(10)]
    made = report(*records, before=refused, after=refused)
    assert [left.finding.node for left in made.refused_together] == ["nms0, nms1, nms2 and 7 more", "other"]
    assert len(made.refused) == 11
    page = to_markdown({"it": made})
    assert page.count("make it small") == 2  # what was tried, and what is left
    assert "nms0, nms1, nms2 and 7 more" in page


def test_changes_of_one_kind_are_one_line_with_their_largest_error():
    errors = {"a": 1e-7, "b": 3e-6, "c": 0.0}
    done = [record(node, Outcome.DONE, row=11).model_copy(update={"max_error": errors[node]}) for node in "abc"]
    compared = records_together([*done, record("d", Outcome.DONE, row=11), record("e", row=11)])
    assert [(one.node, one.max_error) for one in compared] == [("a, b, c", 3e-6), ("d", None), ("e", None)]


def test_the_summary_has_both_verdicts():
    refused = verdict(finding(), finding("b"), stage=Stage.PARSE, builds=None)
    summary = report(before=refused, after=verdict(builds=None)).summary()
    assert summary["verdict"]["before"] == {
        "tool": "tensorrt_rtx",
        "version": "1.7.1",
        "parses": False,
        "builds": None,
        "stage": "parse",
        "findings": 2,
        "first": ["nms: a | rule", "b: a | rule"],
    }
    assert summary["verdict"]["after"]["stage"] == "ok"
    assert "verdict" in report().summary()
    assert report().summary()["verdict"] == {}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (verdict(), "builds"),
        (verdict(builds=None), "parses"),
        (verdict(finding(), stage=Stage.PARSE, builds=None), "does not parse (1 finding)"),
        (verdict(finding(), finding(), stage=Stage.BUILD, builds=False), "parses, does not build (2 findings)"),
        (verdict(finding(seen=Seen.DOCUMENTED), stage=Stage.PARSE), "documented as refused (1 finding)"),
    ],
)
def test_a_verdict_in_a_few_words(made, words):
    assert made.brief() == words


def test_the_report_survives_its_file():
    made = report(record(), before=verdict(finding(), stage=Stage.PARSE), after=verdict())
    assert SurgeryReport.model_validate_json(made.model_dump_json()) == made
