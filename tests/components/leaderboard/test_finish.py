import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_rows import BASE_P50, GOAL, absent, baseline, board, job, row, yardstick

from components.core.contracts.job import Goal, Metric
from components.core.contracts.leaderboard import Accuracy, Latency, Leaderboard
from components.core.contracts.variant import Status
from components.core.errors import StepError
from components.leaderboard.finish import finish
from components.leaderboard.goal import meets
from components.leaderboard.pareto import pareto

INT8 = row("int8-openvino", 22.0, 0.415, size=3_100_000)


def done(*rows, goal=GOAL) -> Leaderboard:
    return finish(board(*rows, goal=goal), job(goal))


def test_the_fastest_row_that_meets_the_goal_wins():
    final = done(baseline(), yardstick(), row("fp16-openvino", 27.0), INT8, row("int8-fast", 15.0, 0.30))
    assert final.winner == "int8-openvino"
    assert final.goal_met
    assert [each.id for each in final.candidates if each.meets_goal] == ["fp16-openvino", "int8-openvino"]


def test_why_states_the_gain_over_what_the_user_runs_and_over_the_best_untouched_runtime():
    final = done(baseline(), yardstick(), yardstick("fp32-onnxruntime", 40.0), INT8)
    assert final.why.startswith(
        "int8-openvino is 2.78x as fast as eager as you run it (PyTorch eager), 95% interval 2.70x to 2.87x, "
        "p50 61.2 ms to 22.0 ms, and 1.50x as fast as the untouched model in its best runtime "
        "(fp32-openvino, OpenVINO), 95% interval 1.41x to 1.59x. mAP50 0.421 to 0.415: 0.006 lost, 0.02 allowed. "
        "Its file is 3.10 MB, 3.87x smaller."
    )


def test_near_ties_go_to_the_more_accurate():
    rough = row("int8-rough", 22.0, 0.405)
    fine = row("int8-fine", 22.5, 0.419)
    final = done(baseline(), rough, fine)
    assert final.winner == "int8-fine"
    assert (
        final.row("int8-rough").reason == "meets the goal; int8-fine is as fast within the intervals and more accurate"
    )
    assert "As fast within the intervals" in final.why


def test_equally_accurate_near_ties_go_to_the_smaller_file():
    assert done(baseline(), row("a", 22.0, size=9_000_000), row("b", 22.5, size=3_000_000)).winner == "b"


def test_a_row_between_the_fastest_and_a_near_tie_is_a_near_tie_too():
    """`wide` reaches into the fastest one's interval; `between` does not, but beats `wide` in latency and accuracy."""
    rows = row("fastest", 20.0, 0.405, width=0.01), row("wide", 26.0, 0.41, width=0.35), row("between", 23.0, 0.419)
    goal = Goal(min_speedup="1.2x", max_accuracy_drop=0.02)
    assert done(baseline(), *rows, goal=goal).winner == "between"


def test_between_equals_the_id_decides_and_not_the_order():
    twins = row("a", 22.0), row("b", 22.0)
    assert done(baseline(), *twins).winner == done(baseline(), *reversed(twins)).winner == "a"


def test_a_clear_lead_is_no_near_tie():
    final = done(baseline(), row("int8-fast", 15.0, 0.405), row("fp16", 22.5, 0.421))
    assert final.winner == "int8-fast"
    assert final.row("fp16").reason == "meets the goal; int8-fast is faster"


def test_a_runtime_switch_alone_never_wins():
    final = done(baseline(), yardstick(p50=20.0))
    assert final.winner is None
    assert not final.goal_met
    assert not any(each.meets_goal for each in final.candidates)


def test_a_candidate_that_only_shares_the_gain_of_the_runtime_switch_does_not_win():
    """`surgery` in OpenVINO is a little faster than the untouched model in OpenVINO, but not beyond the intervals."""
    final = done(baseline(), yardstick(p50=25.0), row("surgery-openvino", 24.6))
    assert final.winner is None
    assert "the untouched model in OpenVINO (fp32-openvino) already reaches it" in final.why
    assert "switch the runtime" in final.why
    assert "not clearly faster than fp32-openvino" in final.row("surgery-openvino").reason


def test_a_yardstick_that_does_not_reach_the_goal_stands_in_nobodys_way():
    """Small files are wanted: the INT8 model is slower than the untouched one, but that one is too large."""
    goal = Goal(max_size="4 MB", max_accuracy_drop=0.02)
    final = done(baseline(), yardstick(p50=25.0), row("int8", 28.0, size=3_000_000), goal=goal)
    assert final.winner == "int8"
    assert "slower than the untouched model in its best runtime" in final.why


def test_without_a_winner_the_nearest_miss_is_told_with_a_goal_that_it_would_meet():
    final = done(baseline(), row("int8-near", 33.0, ratio=1.9, width=0.02), row("int8-far", 50.0), absent("int8-x"))
    assert final.winner is None
    assert final.why == (
        "No candidate meets the goal. Nearest: int8-near, speed-up 1.86x as the lower end of the 95% interval "
        "(measured 1.90x), at least 2.00x wanted. It would have met min_speedup: 1.86x. "
        "Relax the goal so far, or climb further rungs."
    )


def test_a_small_accuracy_miss_is_nearer_than_a_large_speed_miss():
    final = done(baseline(), row("int8", 20.0, 0.398), row("fp16", 45.0, 0.421))
    assert "Nearest: int8, mAP50 drop 0.023, at most 0.020 wanted" in final.why


def test_the_nearest_miss_is_not_advertised_where_the_runtime_switch_gains_more():
    final = done(baseline(), yardstick(p50=33.0), row("int8", 40.0))
    assert "It would have met" not in final.why
    assert "a runtime switch alone gains as much: fp32-openvino" in final.why


def test_a_board_without_measured_candidates_says_what_stopped_them():
    final = done(baseline(), absent("int8"), absent("trt", Status.SKIPPED, "engine built, not timed: no GPU"))
    assert "int8: failed: QDQ placement left no layer" in final.why
    assert "trt: skipped: engine built, not timed: no GPU" in final.why
    assert "no candidate was tried yet" in done(baseline()).why


def test_a_failed_baseline_is_named():
    broken = baseline(status=Status.FAILED, reason="out of memory", latency_ms=None, accuracy=None, speedup=None)
    final = done(broken, INT8)
    assert final.winner is None
    assert "the baseline eager failed (out of memory)" in final.why


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"accuracy": Accuracy(metric=Metric.MAP50, value=math.nan, drop=math.nan)}, "map50 is nan"),
        ({"latency_ms": Latency(p50=math.inf, p90=math.inf, p99=math.inf)}, "latency p50 is inf"),
        ({"latency_ms": Latency(p50=0, p90=1, p99=1)}, "latency p50 is 0"),
        ({"latency_ms": None}, "no latency"),
    ],
)
def test_a_row_with_impossible_numbers_has_failed_with_the_reason(fields, said):
    final = done(baseline(), row("int8", 20.0, reason="head in FP32", **fields))
    broken = final.row("int8")
    assert broken.status is Status.FAILED
    assert broken.reason.startswith("head in FP32; measured numbers are unusable:")
    assert said in broken.reason
    assert broken.latency_ms is None
    assert broken.accuracy is None
    assert final.winner is None


def test_reasons_keep_what_the_step_had_to_say():
    final = done(baseline(), row("int8", 50.0, reason="3 layers in FP32"), row("fp16", 20.0, reason="box head in FP32"))
    assert final.row("int8").reason.endswith("at least 2.00x wanted; 3 layers in FP32")
    assert final.row("fp16").reason == "the winner; box head in FP32"


def test_an_unstable_winner_is_flagged():
    assert "did not settle" in done(baseline(), row("int8", 20.0, stable=False)).why


def test_a_board_without_its_baseline_or_with_twins_is_refused():
    with pytest.raises(StepError, match="no baseline row 'eager'"):
        done(INT8)
    with pytest.raises(StepError, match="more than one row 'int8-openvino'"):
        done(baseline(), INT8, INT8)


# Coarse grids, so that equal latencies, accuracies and sizes are common.
latencies = st.integers(10, 80).map(float)
accuracies = st.integers(36, 44).map(lambda value: value / 100)


@st.composite
def boards(draw):
    rows = [baseline()]
    for index in range(draw(st.integers(0, 7))):
        kind = draw(st.sampled_from(["candidate"] * 4 + ["yardstick", "absent", "nan"]))
        name = f"{kind}-{index}"
        p50 = draw(latencies)
        drift = draw(st.sampled_from([0.9, 1.0, 1.0, 1.1]))  # the machine was slower or faster in that rung
        fields = {
            "ratio": BASE_P50 / p50 * drift,
            "width": draw(st.sampled_from([0.0, 0.02, 0.1])),
            "size": draw(st.sampled_from([3_000_000, 12_000_000])),
            "stable": draw(st.booleans()),
        }
        if kind == "absent":
            rows.append(absent(name, draw(st.sampled_from([Status.FAILED, Status.SKIPPED]))))
        elif kind == "nan":
            rows.append(row(name, p50, math.nan, **fields))
        else:
            rows.append(row(name, p50, draw(accuracies), reference=kind == "yardstick", **fields))
    return rows


goals = st.builds(
    Goal,
    min_speedup=st.sampled_from([1.2, 2.0, 3.0]),
    max_p50=st.sampled_from([None, "30 ms"]),
    max_size=st.sampled_from([None, "4 MB"]),
    max_accuracy_drop=st.sampled_from([0.0, 0.02, 0.05]),
)


@given(boards(), goals)
def test_the_winner_meets_the_goal_and_no_other_row_that_does_beats_it(rows, goal):
    final = done(*rows, goal=goal)
    meeting = [each for each in final.candidates if each.meets_goal]
    assert final.goal_met == (final.winner is not None) == bool(meeting)
    for each in meeting:
        assert meets(each, final.row("eager"), goal) == []
        assert not each.reference
        assert each.status is Status.OK
    if final.winner is None:
        return
    winner = final.row(final.winner)
    assert winner in meeting
    for each in meeting:
        slower = each.latency_ms.p50 > winner.latency_ms.p50
        worse = each.accuracy.value < winner.accuracy.value
        larger = each.size_bytes > winner.size_bytes
        same = (each.latency_ms.p50, each.accuracy.value, each.size_bytes) == (
            winner.latency_ms.p50, winner.accuracy.value, winner.size_bytes,
        )  # fmt: skip
        assert slower or worse or larger or same
    for each in final.candidates:
        if (
            each.reference
            and each.id != "eager"
            and not meets(each.model_copy(update={"reference": False}), rows[0], goal)
        ):
            assert winner.speedup.ci_low > each.speedup.ci_high


@given(boards(), goals, st.randoms())
def test_the_order_of_the_rows_is_irrelevant(rows, goal, chance: random.Random):
    shuffled = list(rows)
    chance.shuffle(shuffled)
    first, second = done(*rows, goal=goal), done(*shuffled, goal=goal)
    assert (first.winner, first.why, first.pareto) == (second.winner, second.why, second.pareto)
    assert {each.id: each for each in first.candidates} == {each.id: each for each in second.candidates}


@given(boards(), goals)
def test_finishing_twice_changes_nothing_and_survives_json(rows, goal):
    final = done(*rows, goal=goal)
    assert finish(final, job(goal)) == final
    assert Leaderboard.model_validate_json(final.model_dump_json()) == final
    assert "NaN" not in final.model_dump_json()


@given(st.lists(st.tuples(latencies, accuracies), max_size=12))
def test_pareto_is_exactly_the_rows_that_none_dominates(points):
    rows = [row(f"row-{index:02}", p50, value) for index, (p50, value) in enumerate(points)]
    expected = {
        f"row-{index:02}"
        for index, (p50, value) in enumerate(points)
        if not any(q <= p50 and other >= value and (q, other) != (p50, value) for q, other in points)
    }
    front = pareto(rows, Metric.MAP50)
    assert set(front) == expected
    assert len(front) == len(expected)
    assert front == sorted(front, key=lambda name: (points[int(name[4:])][0], name))


def test_pareto_leaves_out_rows_without_numbers():
    rows = [row("a", 20.0, math.nan), absent("b"), row("c", 90.0, 0.1, accuracy=None), row("d", 50.0)]
    assert pareto(rows, Metric.MAP50) == ["d"]
