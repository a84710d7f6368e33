"""The calibrators: from how often which values occur to the range that INT8 spans.

A wide range holds outliers, a narrow one gives fine steps to what is common. Which is better depends on the tensor and
the layer that reads it, so several are tried and the output decides.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from components.int8.histograms import BINS, Histogram

Range = tuple[float, float]
"""Smallest and largest real number that is represented; 0 lies between."""
PERCENTILE = 99.99
"""Share of the values, in percent, that the percentile calibrator keeps inside the range."""
_LEVELS = 255
_SHARES = np.linspace(0.2, 1.0, 65)
"""Parts of the whole range that the searching calibrators try."""
_KL_BINS = 128
"""Levels of one side that TensorRT's entropy calibration merges to."""


def min_max(seen: Histogram) -> Range:
    """Everything that was seen."""
    return seen.low, seen.high


def percentile(seen: Histogram, percent: float = PERCENTILE) -> Range:
    """All but the rarest values, half of them cut at each end."""
    total = seen.counts.sum()
    if not total or not seen.reach:
        return min_max(seen)
    share = np.cumsum(seen.counts) / total
    cut = (1 - percent / 100) / 2
    edges = np.linspace(-seen.reach, seen.reach, BINS + 1)
    low = edges[np.searchsorted(share, cut)]
    high = edges[min(int(np.searchsorted(share, 1 - cut)) + 1, BINS)]
    return _within(seen, (low, high))


def mean_squared_error(seen: Histogram) -> Range:
    """The part of the range whose rounding and clipping errors have the smallest sum of squares."""
    if not seen.reach or seen.high == seen.low:
        return min_max(seen)
    errors = [_squared_error(seen, (share * seen.low, share * seen.high)) for share in _SHARES]
    return _scaled(seen, float(_SHARES[int(np.argmin(errors))]))


def entropy(seen: Histogram) -> Range:
    """The part of the range that loses least information in Kullback and Leibler's sense.

    Follows NVIDIA's "8-bit Inference with TensorRT" (GTC 2017): the distribution clipped to a range is compared with
    itself after merging to as many levels as INT8 has.
    """
    if not seen.reach or seen.high == seen.low:
        return min_max(seen)
    divergences = [_divergence(seen, share) for share in _SHARES]
    return _scaled(seen, float(_SHARES[int(np.argmin(divergences))]))


RULES: dict[str, Callable[[Histogram], Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mean_squared_error,
    "entropy": entropy,
}
"""The calibrators by name, in the order in which they are tried."""


def _scaled(seen: Histogram, share: float) -> Range:
    return share * seen.low, share * seen.high


def _within(seen: Histogram, wanted: Range) -> Range:
    low, high = max(float(wanted[0]), seen.low), min(float(wanted[1]), seen.high)
    return (min(low, 0.0), max(high, 0.0)) if low < high else min_max(seen)


def _squared_error(seen: Histogram, wanted: Range) -> float:
    low, high = wanted
    step = (high - low) / _LEVELS
    values = seen.centers
    rounded = np.round((np.clip(values, low, high) - low) / step) * step + low
    return float((seen.counts * (values - rounded) ** 2).sum())


def _divergence(seen: Histogram, share: float) -> float:
    """KL divergence between the clipped distribution and the same merged to INT8's levels."""
    inside = (seen.centers >= share * seen.low) & (seen.centers <= share * seen.high)
    first, last = np.flatnonzero(inside)[[0, -1]] if inside.any() else (0, BINS - 1)
    kept = seen.counts[first : last + 1]
    clipped = kept.copy()
    clipped[0] += seen.counts[:first].sum()
    clipped[-1] += seen.counts[last + 1 :].sum()
    levels = 2 * _KL_BINS
    if len(kept) <= levels:
        return float(np.inf)
    bounds = np.linspace(0, len(kept), levels + 1).astype(int)[:-1]
    occupied = (clipped > 0).astype(float)
    sums = np.add.reduceat(kept, bounds)
    filled = np.add.reduceat(occupied, bounds)
    widths = np.diff(np.append(bounds, len(kept)))
    spread = np.repeat(np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0), widths) * occupied
    return _relative_entropy(clipped, spread)


def _relative_entropy(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    used = first > 0
    # A level that is empty after merging would make the divergence infinite for one stray value.
    second = np.where(used & (second <= 0), 1e-4, second)
    p, q = first[used] / first.sum(), second[used] / second.sum()
    return float((p * np.log(p / q)).sum())
