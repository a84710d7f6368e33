"""How far two histograms are apart, and how far chance alone would take them."""

from collections.abc import Mapping

import numpy as np

_DRAWS = 4000
_QUANTILE = 0.999
"""High, because a dozen distributions are compared at a time: one false alarm in a hundred runs."""


def distance(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Total variation: the share (0..1) that would have to move to another bin to make one the other.

    One number with a meaning for every kind of bin, unlike a divergence, and finite where a bin is empty.
    """
    first, second = _aligned(before, after)
    if not first.sum() or not second.sum():
        return 0.0 if first.sum() == second.sum() else 1.0
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)


def by_chance(before: Mapping[str, int], after: Mapping[str, int], seed: int) -> float:
    """The distance that two samples of these sizes from one and the same population exceed once in a thousand times.

    The population is both together; few boxes in many bins are far apart by chance.
    """
    first, second = _aligned(before, after)
    if not first.sum() or not second.sum():
        return 0.0
    population = (first + second) / (first.sum() + second.sum())
    draw = np.random.default_rng(seed)
    one = draw.multinomial(int(first.sum()), population, _DRAWS) / first.sum()
    other = draw.multinomial(int(second.sum()), population, _DRAWS) / second.sum()
    return float(np.quantile(np.abs(one - other).sum(axis=1) / 2, _QUANTILE))


def _aligned(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    bins = sorted(before.keys() | after.keys())
    first, second = (np.array([each.get(name, 0) for name in bins], np.float64) for each in (before, after))
    return first, second
