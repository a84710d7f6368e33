import math

import pytest
from leaderboard_rows import GOAL, absent, baseline, row, yardstick

from components.core.contracts.job import Goal, Metric
from components.core.contracts.leaderboard import Accuracy, Latency, Ratio
from components.core.contracts.variant import Status
from components.leaderboard.goal import meets, misses


def test_a_row_within_every_limit_meets_the_goal():
    assert meets(row("int8", 23.3, 0.415), baseline(), GOAL) == []


def test_a_speedup_counts_with_the_lower_end_of_its_interval():
    fast = row("int8", 30.0, ratio=2.04, width=0.05)
    (reason,) = meets(fast, baseline(), GOAL)
    assert reason == "speed-up 1.94x as the lower end of the 95% interval (measured 2.04x), at least 2.00x wanted"


def test_a_near_miss_never_reads_as_if_it_met_the_limit():
    (reason,) = meets(row("int8", 30.0, ratio=1.9999, width=0.0), baseline(), GOAL)
    assert "1.9999x" in reason
    assert "2.0000x" in reason


def test_exactly_the_drop_that_may_be_paid_is_paid_despite_rounding():
    assert 0.52 - 0.50 > 0.02  # what makes this a case at all
    before = baseline(accuracy=Accuracy(metric=Metric.MAP50, value=0.52, drop=0))
    after = row("int8", 22.0, accuracy=Accuracy(metric=Metric.MAP50, value=0.50, drop=0.52 - 0.50))
    assert meets(after, before, GOAL) == []


def test_a_drop_above_the_allowed_one_is_told_in_absolute_numbers():
    (reason,) = meets(row("int8", 23.3, 0.39), baseline(), GOAL)
    assert reason == "mAP50 drop 0.031, at most 0.020 wanted"


def test_the_drop_is_on_the_metric_of_the_goal():
    goal = Goal(min_speedup="2x", metric=Metric.MAP, max_accuracy_drop=0.02)
    assert meets(row("int8", 23.3, 0.39), baseline(), goal) == []  # mAP is half of mAP50 here
    assert meets(row("int8", 23.3, 0.36), baseline(), goal) == ["mAP drop 0.030, at most 0.020 wanted"]


def test_a_metric_that_was_not_measured_is_not_met():
    goal = Goal(min_speedup="2x", metric=Metric.MAP, max_accuracy_drop=0.5)
    assert meets(row("int8", 23.3, other_accuracy={}), baseline(other_accuracy={}), goal) == ["mAP was not measured"]


@pytest.mark.parametrize(
    ("goal", "fragment"),
    [
        (Goal(max_p50="20 ms", max_accuracy_drop=0.1), "p50 30.0 ms, at most 20.0 ms wanted"),
        (Goal(max_p99="38 ms", max_accuracy_drop=0.1), "p99 39.0 ms, at most 38.0 ms wanted"),
        (Goal(min_throughput="40/s", max_accuracy_drop=0.1), "throughput 33.3/s, at least 40.0/s wanted"),
        (Goal(max_size="10 MB", max_accuracy_drop=0.1), "size 12.0 MB, at most 10.0 MB wanted"),
    ],
)
def test_every_limit_is_checked(goal, fragment):
    assert meets(row("int8", 30.0), baseline(), goal) == [fragment]


def test_a_limit_that_is_just_reached_is_met():
    goal = Goal(max_p50="30 ms", max_p99="39 ms", max_size="12 MB", min_throughput=1000 / 30, max_accuracy_drop=0)
    assert meets(row("int8", 30.0), baseline(), goal) == []


def test_all_misses_are_told_at_once():
    goal = Goal(min_speedup="3x", max_size="1 MB", max_accuracy_drop=0.01)
    assert [reason.split()[0] for reason in meets(row("int8", 30.0, 0.3), baseline(), goal)] == [
        "speed-up", "size", "mAP50",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"speedup": Ratio(ratio=math.nan, ci_low=math.nan, ci_high=math.nan)},
        {"accuracy": Accuracy(metric=Metric.MAP50, value=math.nan, drop=math.nan)},
        {"accuracy": None, "other_accuracy": {}},
        {"speedup": None},
    ],
)
def test_a_number_that_is_nan_or_missing_never_meets(fields):
    assert meets(row("int8", 20.0, **fields), baseline(), GOAL)


@pytest.mark.parametrize("limit", ["max_p50", "max_p99"])
def test_a_latency_that_is_nan_never_meets(limit):
    broken = row("int8", 20.0, latency_ms=Latency(p50=math.nan, p90=math.nan, p99=math.nan))
    assert meets(broken, baseline(), Goal(**{limit: "1 s"}, max_accuracy_drop=1))


def test_neither_the_baseline_nor_a_yardstick_nor_a_failed_row_meets():
    loose = Goal(max_p50="1 s", max_accuracy_drop=1)
    assert "baseline" in meets(baseline(), baseline(), loose)[0]
    assert "never the winner" in meets(yardstick(), baseline(), loose)[0]
    assert meets(absent("int8"), baseline(), loose) == ["failed: QDQ placement left no layer"]
    assert meets(absent("int8", Status.SKIPPED, "no GPU"), baseline(), loose) == ["skipped: no GPU"]


def test_nothing_meets_beside_a_baseline_that_was_not_measured():
    broken = baseline(status=Status.FAILED, reason="killed", latency_ms=None, accuracy=None)
    assert "baseline eager was not measured" in meets(row("int8", 20.0), broken, GOAL)[0]


def test_the_relaxed_goal_of_a_miss_is_met():
    goal = Goal(min_speedup="3x", max_p50="10 ms", min_throughput="99/s", max_size="1 MB", max_accuracy_drop=0.001)
    candidate = row("int8", 27.77, 0.40111)
    settings = dict(miss.relax.split(": ", 1) for miss in misses(candidate, baseline(), goal))
    assert len(settings) == 5
    assert meets(candidate, baseline(), Goal(**settings)) == []


def test_a_speedup_below_one_offers_no_goal_that_the_baseline_meets():
    (miss,) = misses(row("int8", 80.0), baseline(), GOAL)
    assert miss.relax == ""
    assert 0 < miss.shortfall < 1
