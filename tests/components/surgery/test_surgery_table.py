"""Every row of the acceptance table, judged by the real TensorRT-RTX and ONNX Runtime."""

import onnx
import pytest
from surgery_cases import Case, cases, judge, verdict_of
from surgery_graphs import needs_rtx

from components.surgery.operate import operate
from components.surgery.registry import SURGERIES

CASES = [pytest.param(row, case, id=f"row{row:02}-{case.name}") for row, listed in cases().items() for case in listed]
ROWS = range(1, 48)


@needs_rtx
@pytest.mark.parametrize(("row", "case"), CASES)
def test_row_is_as_the_table_demands(row: int, case: Case) -> None:
    judgement = judge(row, case)
    assert verdict_of(case, judgement) == ""
    again, second = operate(judgement.model, case.target, options=case.options)
    assert second.done == []
    assert again is judgement.model
    if case.after == "ok":
        onnx.checker.check_model(judgement.model, full_check=True)


def test_every_row_has_cases_and_a_surgery() -> None:
    assert sorted(cases()) == list(ROWS)
    assert {surgery.row for surgery in SURGERIES} - {0} == set(ROWS)
