"""The Pareto front: the rows worth looking at whatever the goal is."""

import math
from collections.abc import Iterable

from components.core.contracts.job import Metric
from components.core.contracts.leaderboard import Candidate
from components.core.contracts.variant import Status
from components.leaderboard.goal import accuracy_of


def pareto(candidates: Iterable[Candidate], metric: Metric) -> list[str]:
    """Ids of the rows that no other row dominates, the fastest first.

    A row dominates another when it is at least as fast (end-to-end p50) and at least as accurate, and better in one of
    the two. Yardsticks take part: a candidate that loses to the untouched model in another runtime is not worth a look.
    Rows without both numbers do not.
    """
    points = sorted(
        (row.latency_ms.p50, -value, row.id)
        for row in candidates
        if row.status is Status.OK
        and row.latency_ms is not None
        and (value := accuracy_of(row, metric)) is not None
        and math.isfinite(value)
        and math.isfinite(row.latency_ms.p50)
    )
    front: list[str] = []
    best: tuple[float, float] | None = None
    for p50, negative, identifier in points:
        # Sorted by latency: a row is on the front when it is more accurate than every faster one, or equals the last.
        if best is None or negative < best[1] or (p50, negative) == best:
            front.append(identifier)
            best = (p50, negative)
    return front
