"""Whom to train: what the probe measured against the goal, and against the other entrants. Pure functions.

A network's capacity is no accuracy. Entrants dominate one another only where both the latency is measured and the
accuracy is published, or, without that, where they are sizes of one architecture and one has more parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.core import formats
from components.core.contracts.job import Goal
from components.core.contracts.search import Probed
from components.core.contracts.variant import Status

BY_PUBLISHED = "published accuracy where both have one of the same kind"
BY_PARAMETERS = "parameters among sizes of one architecture"


@dataclass(frozen=True)
class Decision:
    """What becomes of one entrant after the probe."""

    id: str
    trains: bool
    reason: str


def limits_of(goal: Goal) -> list[str]:
    """The limits that a probe can drop by, in words; accuracy is not among them."""
    values = {
        "min_speedup": formats.times(goal.min_speedup) if goal.min_speedup else "",
        "max_p50": formats.milliseconds(goal.max_p50) if goal.max_p50 else "",
        "max_p99": formats.milliseconds(goal.max_p99) if goal.max_p99 else "",
        "min_throughput": formats.per_second(goal.min_throughput) if goal.min_throughput else "",
        "max_size": formats.size(goal.max_size) if goal.max_size else "",
    }
    return [f"{name} {value}" for name, value in values.items() if value]


def choose(probed: Sequence[Probed], goal: Goal, slack: float, keep: int) -> list[Decision]:
    """Decides for every entrant, in their order.

    Failed ones and those that cannot meet the goal's limits are out, then those that another one dominates. Of the
    rest the fastest are trained; the last place goes to the one of most capacity, in case all of these are too small.

    Args:
        probed: what the probe found out.
        goal: of the job.
        slack: share of the limits by which an entrant may miss them.
        keep: places.
    """
    reasons: dict[str, str] = {}
    for one in probed:
        if one.status is not Status.OK:
            reasons[one.id] = f"failed in the probe: {one.reason}"
        elif missed := misses(one, goal, slack):
            reasons[one.id] = f"cannot meet the goal: {missed}"
    able = [one for one in probed if one.id not in reasons]
    for one in able:
        if by := next((other for other in able if dominates(other, one)), None):
            reasons[one.id] = f"dominated by {by.id}: {_why(by, one)}"
    rest = sorted((one for one in able if one.id not in reasons), key=lambda one: (-_ratio(one), one.id))
    chosen = _places(rest, keep)
    for one in rest:
        if one.id not in chosen:
            reasons[one.id] = (
                f"not among the {keep} that are trained: {_ratio(one):.2f} times as fast as the baseline, "
                f"the others are faster or, in the last place, larger"
            )
    return [
        Decision(one.id, one.id in chosen, chosen[one.id] if one.id in chosen else reasons[one.id]) for one in probed
    ]


def misses(one: Probed, goal: Goal, slack: float) -> str:
    """Which limit an entrant misses by more than the slack, even at the favourable end of its interval; or nothing."""
    looser, tighter = 1 + slack, 1 / (1 + slack)
    if goal.min_speedup and one.speedup and one.speedup.ci_high * looser < goal.min_speedup:
        return f"speed-up {formats.times(one.speedup.ratio)}, {formats.times(goal.min_speedup)} wanted"
    for name, value, limit in (
        ("p50", one.latency_ms.p50 if one.latency_ms else None, goal.max_p50),
        ("p99", one.latency_ms.p99 if one.latency_ms else None, goal.max_p99),
    ):
        if limit and value and value * tighter > limit:
            return f"{name} {formats.milliseconds(value)}, {formats.milliseconds(limit)} wanted"
    if goal.min_throughput and one.throughput and one.throughput * looser < goal.min_throughput:
        return f"{formats.per_second(one.throughput)}, {formats.per_second(goal.min_throughput)} wanted"
    # Its fastest form may not be its smallest, but weights in INT8 are as small as they get.
    if goal.max_size and one.size_bytes and one.size_bytes * tighter > goal.max_size and one.form.startswith("int8"):
        return f"size {formats.size(one.size_bytes)}, {formats.size(goal.max_size)} wanted"
    return ""


def dominates(one: Probed, other: Probed) -> bool:
    """Whether `one` is clearly faster than `other`, and at least as capable by what is known of both."""
    if one is other or not one.speedup or not other.speedup or one.speedup.ci_low <= other.speedup.ci_high:
        return False
    if comparable(one, other):
        return (one.published or 0.0) >= (other.published or 0.0)
    if one.family and one.family == other.family and one.parameters and other.parameters:
        return one.parameters >= other.parameters
    return False


def comparable(one: Probed, other: Probed) -> bool:
    """Whether both have a published accuracy of the same kind."""
    return one.published is not None and other.published is not None and one.published_as == other.published_as


def bases(probed: Sequence[Probed]) -> list[str]:
    """What dominance could be judged by among these."""
    found = []
    if sum(one.published is not None for one in probed) > 1:
        found.append(BY_PUBLISHED)
    if len({one.family for one in probed if one.family}) < sum(1 for one in probed if one.family):
        found.append(BY_PARAMETERS)
    return found


def _places(rest: list[Probed], keep: int) -> dict[str, str]:
    """Id -> why it is trained."""
    chosen = {one.id: "among the fastest that can meet the goal" for one in rest[:keep]}
    if len(rest) <= keep or keep == 1:
        return chosen
    strongest = _strongest(rest)
    if strongest.id not in chosen:
        del chosen[rest[keep - 1].id]
        chosen[strongest.id] = "the most capable that can meet the goal, should the fastest be too small"
    return chosen


def _strongest(rest: list[Probed]) -> Probed:
    if all(one.published is not None for one in rest) and len({one.published_as for one in rest}) == 1:
        return max(rest, key=lambda one: (one.published or 0.0, _ratio(one), one.id))
    return max(rest, key=lambda one: (one.parameters or 0, _ratio(one), one.id))


def _why(by: Probed, one: Probed) -> str:
    faster = f"{_ratio(by) / _ratio(one):.2f} times as fast"
    if comparable(by, one):
        return f"{faster}, {by.published_as} {by.published:.3f} against {one.published:.3f}"
    return f"{faster}, with {(by.parameters or 0) / 1e6:.2f} M parameters against {(one.parameters or 0) / 1e6:.2f} M"


def _ratio(one: Probed) -> float:
    return one.speedup.ratio if one.speedup else 0.0
