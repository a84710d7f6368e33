"""The arithmetic of a benchmark: percentiles, paired ratios, their confidence interval, and when rounds agree.

Pure functions of numpy arrays; no clock, no process.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.core.contracts.leaderboard import Latency, Ratio

Values = Sequence[float] | npt.NDArray[np.float64]

RESAMPLES = 4000
MAX_SPREAD = 0.10
"""Rounds agree when the spread of their ratios is at most this share of the median..."""
MAX_HALF_WIDTH = 0.05
"""...and the confidence interval reaches at most this share to either side."""
_MAD_TO_SIGMA = 1.4826
"""Scales the median absolute deviation of a normal sample to its standard deviation."""


def percentiles(milliseconds: Values) -> Latency:
    """p50, p90 and p99, interpolated linearly between calls.

    Raises:
        ValueError: there are no values.
    """
    if len(milliseconds) == 0:
        raise ValueError("no calls were timed")
    p50, p90, p99 = np.percentile(np.asarray(milliseconds, np.float64), [50, 90, 99]).tolist()
    return Latency(p50=p50, p90=p90, p99=p99)


def round_medians(rounds: Sequence[Values]) -> npt.NDArray[np.float64]:
    """The median of each round's calls."""
    return np.array([np.median(calls) for calls in rounds], np.float64)


def paired_ratios(baseline: Values, candidate: Values) -> npt.NDArray[np.float64]:
    """Baseline over candidate, round by round; above 1 the candidate is faster.

    Args:
        baseline: median of each round, in any unit.
        candidate: the same rounds of the candidate, in the same unit.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} rounds of the baseline and {len(candidate)} of the candidate do not pair")
    return np.asarray(baseline, np.float64) / np.asarray(candidate, np.float64)


def self_ratios(medians: Values) -> npt.NDArray[np.float64]:
    """Each round over the round before it (the first over the last): what noise alone makes of a ratio of 1."""
    values = np.asarray(medians, np.float64)
    return np.roll(values, 1) / values


def median_with_interval(ratios: Values, seed: int) -> Ratio:
    """The median of the rounds' ratios with its bootstrap 95% confidence interval (percentile method).

    Whole rounds are drawn with replacement: calls within a round share the machine's mood, so that calls are not
    independent and rounds nearly are.

    Args:
        ratios: one a round.
        seed: makes the interval reproducible.

    Raises:
        ValueError: there are no rounds.
    """
    values = np.asarray(ratios, np.float64)
    if values.size == 0:
        raise ValueError("no rounds were timed")
    drawn = np.random.default_rng(seed).choice(values, size=(RESAMPLES, values.size))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5]).tolist()
    middle = float(np.median(values))
    return Ratio(ratio=middle, ci_low=min(low, middle), ci_high=max(high, middle))


def spread(values: Values) -> float:
    """Robust relative spread: the scaled median absolute deviation over the median; 0 where all are equal."""
    array = np.asarray(values, np.float64)
    middle = float(np.median(array))
    if middle == 0:
        return 0.0 if not array.any() else float("inf")
    return _MAD_TO_SIGMA * float(np.median(np.abs(array - middle))) / abs(middle)


def rounds_agree(ratios: Values, interval: Ratio) -> bool:
    """Whether more rounds would tell nothing new; see `MAX_SPREAD` and `MAX_HALF_WIDTH`."""
    half_width = max(interval.ci_high - interval.ratio, interval.ratio - interval.ci_low) / interval.ratio
    return spread(ratios) <= MAX_SPREAD and half_width <= MAX_HALF_WIDTH
