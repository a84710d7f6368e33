"""Does one row meet the goal, and if not, what is missing and by how much."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from components.core import formats
from components.core.contracts.job import Goal, Metric
from components.core.contracts.leaderboard import Candidate
from components.core.contracts.variant import Status

# 0.52 - 0.50 is 0.020000000000000018: a drop of exactly what may be paid is paid.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Miss:
    """One reason why a row does not meet the goal."""

    reason: str
    """In words: what was reached and what was wanted."""
    shortfall: float
    """Part of what was wanted that is missing, 0..1; infinite where nothing was measured."""
    relax: str = ""
    """The setting of the goal that this row would have met, for instance ``min_speedup: 1.5x``."""


def meets(candidate: Candidate, baseline: Candidate, goal: Goal) -> list[str]:
    """Why `candidate` does not meet `goal`; an empty list means that it does.

    A speed-up counts with the lower end of its 95% interval, an accuracy drop is absolute and on the goal's metric,
    and a number that is NaN or missing never meets anything. A yardstick (the untouched model) never meets a goal.
    """
    return [miss.reason for miss in misses(candidate, baseline, goal)]


def misses(candidate: Candidate, baseline: Candidate, goal: Goal) -> list[Miss]:
    """`meets` with the size of each miss."""
    if candidate.id == baseline.id:
        return [Miss("the baseline: what the speed-ups are over", math.inf)]
    if candidate.reference:
        where = formats.runtime_name(candidate.runtime)
        return [Miss(f"a yardstick: the untouched model in {where}, never the winner", math.inf)]
    return numeric_misses(candidate, baseline, goal)


def numeric_misses(candidate: Candidate, baseline: Candidate, goal: Goal) -> list[Miss]:
    """What the numbers alone miss, yardstick or not; the limits in the order of the Goal."""
    if candidate.status is not Status.OK:
        return [Miss(f"{candidate.status}: {candidate.reason or 'no reason given'}", math.inf)]
    if baseline.status is not Status.OK:
        return [Miss(f"the baseline {baseline.id} was not measured, so that nothing compares with it", math.inf)]
    return list(_limits_missed(candidate, goal)) + list(_accuracy_missed(candidate, baseline, goal))


def accuracy_of(candidate: Candidate, metric: Metric) -> float | None:
    """The value of `metric` (0..1), or None where it was not measured."""
    if candidate.accuracy is not None and candidate.accuracy.metric is metric:
        return candidate.accuracy.value
    return candidate.other_accuracy.get(metric)


def drop_of(candidate: Candidate, baseline: Candidate, metric: Metric) -> float | None:
    """How much of the baseline's `metric` was lost (absolute; negative is a gain), or None where unknown."""
    value, before = accuracy_of(candidate, metric), accuracy_of(baseline, metric)
    if value is not None and before is not None:
        return before - value
    if candidate.accuracy is not None and candidate.accuracy.metric is metric:
        return candidate.accuracy.drop
    return None


def _limits_missed(candidate: Candidate, goal: Goal) -> Iterable[Miss]:
    speedup, latency = candidate.speedup, candidate.latency_ms
    if goal.min_speedup is not None:
        yield from _at_least(
            speedup.ci_low if speedup else None, goal.min_speedup, "speed-up", "min_speedup", formats.times,
            aside=f" as the lower end of the 95% interval (measured {formats.times(speedup.ratio)})" if speedup else "",
        )  # fmt: skip
    if goal.max_p50 is not None:
        yield from _at_most(latency.p50 if latency else None, goal.max_p50, "p50", "max_p50", formats.milliseconds)
    if goal.max_p99 is not None:
        yield from _at_most(latency.p99 if latency else None, goal.max_p99, "p99", "max_p99", formats.milliseconds)
    if goal.min_throughput is not None:
        yield from _at_least(
            candidate.throughput, goal.min_throughput, "throughput", "min_throughput", formats.per_second
        )
    if goal.max_size is not None:
        yield from _at_most(candidate.size_bytes, goal.max_size, "size", "max_size", formats.size)


def _accuracy_missed(candidate: Candidate, baseline: Candidate, goal: Goal) -> Iterable[Miss]:
    name = formats.metric_name(goal.metric)
    drop = drop_of(candidate, baseline, goal.metric)
    if drop is None or not math.isfinite(drop):
        yield Miss(f"{name} was not measured" if drop is None else f"{name} is not a number", math.inf)
    elif drop > goal.max_accuracy_drop + _ROUNDING:
        lost, allowed = formats.apart(drop, goal.max_accuracy_drop, formats.fraction)
        before = accuracy_of(baseline, goal.metric)
        wanted = before - goal.max_accuracy_drop if before is not None else 1.0
        excess = drop - goal.max_accuracy_drop
        yield Miss(
            f"{name} drop {lost}, at most {allowed} wanted",
            min(excess / wanted, 1.0) if wanted > 0 else 1.0,
            f"max_accuracy_drop: {math.ceil(drop * 1e4) / 1e4:g}",
        )


def _at_least(
    value: float | None, limit: float, what: str, setting: str, form: formats.Form, aside: str = ""
) -> Iterable[Miss]:
    if value is None or not math.isfinite(value):
        yield Miss(f"{what} was not measured", math.inf)
    elif value < limit:
        reached, wanted = formats.apart(value, limit, form)
        # A minimum that the baseline itself meets is no goal, and the Job refuses it.
        sensible = value > 1 if setting == "min_speedup" else value > 0
        relax = f"{setting}: {formats.rounded(value, form, up=False)}" if sensible else ""
        yield Miss(f"{what} {reached}{aside}, at least {wanted} wanted", 1 - max(value, 0) / limit, relax)


def _at_most(value: float | None, limit: float, what: str, setting: str, form: formats.Form) -> Iterable[Miss]:
    if value is None or not math.isfinite(value):
        yield Miss(f"{what} was not measured", math.inf)
    elif value > limit:
        reached, wanted = formats.apart(value, limit, form)
        relax = f"{setting}: {formats.rounded(value, form, up=True)}"
        yield Miss(f"{what} {reached}, at most {wanted} wanted", 1 - limit / value, relax)
