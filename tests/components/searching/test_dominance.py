"""Whom to train: limits of the goal and their slack, dominance by what is known, places for the fast and the large."""

from typing import Any

import pytest

from components.core.contracts.job import Goal
from components.core.contracts.leaderboard import Latency, Ratio
from components.core.contracts.search import Probed
from components.core.contracts.variant import Status
from components.searching.dominance import BY_PARAMETERS, BY_PUBLISHED, bases, choose, dominates, limits_of, misses

BASELINE_MS = 100.0


def probed(name: str, ratio: float, width: float = 0.02, **facts: Any) -> Probed:
    p50 = BASELINE_MS / ratio
    return Probed(
        id=name,
        status=Status.OK,
        form="int8-openvino",
        latency_ms=Latency(p50=p50, p90=1.2 * p50, p99=1.5 * p50),
        speedup=Ratio(ratio=ratio, ci_low=ratio * (1 - width), ci_high=ratio * (1 + width)),
        throughput=1e3 / p50,
        size_bytes=1_000_000,
        **facts,
    )


def goal(**limits: Any) -> Goal:
    return Goal.model_validate({"max_accuracy_drop": 0.02} | limits)


def trained(decisions: Any) -> list[str]:
    return [one.id for one in decisions if one.trains]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min_speedup": "3x"}, "speed-up 2.00x, 3.00x wanted"),
        ({"max_p50": "40 ms"}, "p50 50.0 ms, 40.0 ms wanted"),
        ({"max_p99": "60 ms"}, "p99 75.0 ms, 60.0 ms wanted"),
        ({"min_throughput": "30/s"}, "20.0/s, 30.0/s wanted"),
        ({"max_size": "800 kB"}, "size 1.00 MB, 800 kB wanted"),
    ],
)
def test_what_misses_a_limit_is_dropped_with_both_numbers(limits, words):
    one = probed("slow", 2.0)
    missed = misses(one, goal(**limits), slack=0.1)
    assert missed == words
    (decision,) = choose([one], goal(**limits), 0.1, 3)
    assert not decision.trains
    assert decision.reason == f"cannot meet the goal: {missed}"
    assert misses(one, goal(**limits), slack=2.0) == ""


def test_a_near_miss_is_trained_all_the_same():
    near, wide = probed("near", 2.8, width=0.0), probed("wide", 2.5, width=0.2)
    assert misses(near, goal(min_speedup="3x"), slack=0.1) == ""
    assert misses(near, goal(min_speedup="3x"), slack=0.01) != ""
    assert misses(wide, goal(min_speedup="3x"), slack=0.0) == ""  # the interval reaches 3x


def test_an_fp32_form_is_not_dropped_by_its_size():
    one = probed("fp32", 2.0).model_copy(update={"form": "surgery-openvino"})
    assert misses(one, goal(max_size="100 kB"), slack=0.0) == ""


def test_a_failed_one_is_out_with_its_reason():
    failed = Probed(id="broken", status=Status.FAILED, reason="no feature maps")
    decisions = choose([failed, probed("a", 3.0)], goal(min_speedup="2x"), 0.1, 3)
    assert [(one.trains, one.reason) for one in decisions] == [
        (False, "failed in the probe: no feature maps"),
        (True, "among the fastest that can meet the goal"),
    ]


def test_published_accuracy_dominates_across_architectures_and_parameters_do_not():
    top = {"published_as": "ImageNet-1K top-1"}
    fast = probed("fast", 4.0, parameters=1_000_000, family="a", published=0.75, **top)
    slow = probed("slow", 3.0, parameters=9_000_000, family="b", published=0.74, **top)
    better = probed("better", 3.0, parameters=500_000, family="b", published=0.80, **top)
    unknown = probed("unknown", 3.0, parameters=900_000, family="b")
    assert dominates(fast, slow)
    assert not dominates(fast, better)
    assert not dominates(fast, unknown)
    assert not dominates(slow, fast)
    other_kind = slow.model_copy(update={"published_as": "COCO mAP"})
    assert not dominates(fast, other_kind)


def test_in_one_architecture_more_parameters_and_faster_dominates():
    wide = probed("wide", 4.0, parameters=2_000_000, family="net")
    deep = probed("deep", 3.0, parameters=1_500_000, family="net")
    assert dominates(wide, deep)
    decisions = choose([wide, deep], goal(min_speedup="2x"), 0.1, 5)
    assert trained(decisions) == ["wide"]
    assert decisions[1].reason.startswith(
        "dominated by wide: 1.33 times as fast, with 2.00 M parameters against 1.50 M"
    )
    # Not clearly faster: the intervals overlap.
    assert not dominates(probed("wide", 3.05, 0.05, parameters=2, family="net"), deep)
    # No architecture known: parameters alone are no reason.
    assert not dominates(probed("x", 4.0, parameters=2), probed("y", 3.0, parameters=1))


def test_the_last_place_is_the_most_capable_ones():
    rows = [probed(f"n{index}", 6.0 - index, parameters=size) for index, size in enumerate((1, 2, 9, 3))]
    decisions = choose(rows, goal(min_speedup="2x"), 0.1, 2)
    assert trained(decisions) == ["n0", "n2"]
    assert decisions[2].reason.startswith("the most capable that can meet the goal")
    assert decisions[1].reason.startswith("not among the 2 that are trained")
    assert trained(choose(rows, goal(min_speedup="2x"), 0.1, 1)) == ["n0"]
    assert trained(choose(rows, goal(min_speedup="2x"), 0.1, 4)) == ["n0", "n1", "n2", "n3"]
    # Where accuracies are published, they say who is most capable.
    known = [one.model_copy(update={"published": value, "published_as": "top-1"}) for one, value in
             zip(rows, (0.5, 0.6, 0.7, 0.8), strict=True)]  # fmt: skip
    assert trained(choose(known, goal(min_speedup="2x"), 0.1, 2)) == ["n0", "n3"]


def test_the_card_says_what_was_judged_by():
    assert bases([probed("a", 2.0, family="x", parameters=1), probed("b", 3.0, family="y", parameters=1)]) == []
    assert bases([probed("a", 2.0, family="x"), probed("b", 3.0, family="x")]) == [BY_PARAMETERS]
    assert bases([probed("a", 2.0, published=0.5), probed("b", 3.0, published=0.5)]) == [BY_PUBLISHED]
    assert [line.split()[0] for line in limits_of(goal(min_speedup="2x", max_p50="9 ms"))] == ["min_speedup", "max_p50"]
