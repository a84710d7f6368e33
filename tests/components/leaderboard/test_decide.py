import math

import pytest
from leaderboard_rows import baseline, board, job, row, yardstick

from components.core.contracts.job import Rung
from components.core.contracts.leaderboard import Latency
from components.core.errors import StepError
from components.leaderboard.decide import should_climb

GOOD = row("int8", 22.0, 0.415)


def test_climbs_until_a_candidate_meets_the_goal():
    assert should_climb(board(baseline(), yardstick()), Rung.INT8, job())
    assert should_climb(board(baseline(), row("int8", 40.0)), Rung.FP16, job())
    assert not should_climb(board(baseline(), GOOD), Rung.FP16, job())


def test_a_runtime_switch_does_not_stop_the_climb():
    assert should_climb(board(baseline(), yardstick(p50=20.0)), Rung.INT8, job())
    assert should_climb(board(baseline(), yardstick(p50=25.0), row("surgery-openvino", 24.9)), Rung.FP16, job())


def test_exhaustive_climbs_on_after_the_goal_is_met():
    assert should_climb(board(baseline(), GOOD), Rung.FP16, job(mode="exhaustive"))


@pytest.mark.parametrize("mode", ["exhaustive", "stop-when-met"])
def test_a_rung_that_the_job_does_not_name_is_never_climbed(mode):
    assert not should_climb(board(baseline()), Rung.FP16, job(mode=mode, rungs=["int8"]))
    assert not should_climb(board(baseline()), "backbone", job(mode=mode, rungs=["int8", "fp16"]))


def test_takes_the_rung_as_text_too():
    assert should_climb(board(baseline()), "int8", job())


def test_an_unstable_row_counts_and_a_nan_does_not():
    assert not should_climb(board(baseline(), row("int8", 22.0, stable=False)), Rung.FP16, job())
    assert should_climb(board(baseline(), row("int8", 22.0, math.nan)), Rung.FP16, job())
    impossible = row("int8", 22.0, latency_ms=Latency(p50=0, p90=0, p99=0))
    assert should_climb(board(baseline(), impossible), Rung.FP16, job())


def test_a_board_without_its_baseline_is_refused():
    with pytest.raises(StepError, match="no baseline row"):
        should_climb(board(GOOD), Rung.FP16, job())
