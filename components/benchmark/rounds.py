"""Alternating rounds: every contestant runs for a moment in turn, again and again; all share the same weather."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.benchmark.process import WorkerError, WorkerProcess
from components.benchmark.stats import (
    median_with_interval,
    paired_ratios,
    percentiles,
    round_medians,
    rounds_agree,
    self_ratios,
)
from components.core.contracts.leaderboard import Latency, Ratio

_SILENCE_SECONDS = 120.0
_EXTRA_BLOCK = 3
"""Extra rounds between two looks at whether the contestants are stable."""


class RoundTimes(NamedTuple):
    """One contestant's calls in one round, in milliseconds."""

    end_to_end: list[float]
    model: list[float]


@dataclass
class Contestant:
    """A candidate on the track: its process and what was timed so far."""

    id: str
    worker: WorkerProcess
    batch: int = 1
    """Images of one call."""
    rounds: dict[int, RoundTimes] = field(default_factory=dict)
    """Number of the round -> its calls."""
    failure: WorkerError | None = None

    def latency(self) -> Latency:
        """End-to-end percentiles of all calls."""
        return percentiles([call for times in self.rounds.values() for call in times.end_to_end])

    def model_latency(self) -> Latency:
        """Percentiles of the model alone."""
        return percentiles([call for times in self.rounds.values() for call in times.model])

    def throughput(self) -> float:
        """Images a second, one call after the other."""
        return 1e3 * self.batch / float(np.mean([call for times in self.rounds.values() for call in times.end_to_end]))


@dataclass(frozen=True)
class Pace:
    """How long the contestants run.

    Args:
        rounds: planned rounds; twice as many at most, where they disagree.
        seconds: of one contestant in one round.
        seed: of the bootstrap.
        silence: seconds without an answer after which a contestant is out.
    """

    rounds: int
    seconds: float
    seed: int
    silence: float = _SILENCE_SECONDS


def run_rounds(
    baseline: Contestant,
    others: Sequence[Contestant],
    pace: Pace,
    progress: Callable[[str, float | None, float | None], None],
) -> None:
    """Times all contestants; the order rotates from round to round.

    A contestant that fails is out (`Contestant.failure`) and the others go on. Those whose ratios to the baseline
    disagree between rounds run extra rounds, again alternating with the baseline, up to twice the planned number.

    Raises:
        WorkerError: the baseline failed, without which nothing can be said.
    """
    everyone = [baseline, *others]
    for number in range(pace.rounds):
        progress(f"round {number + 1} of {pace.rounds}", number, pace.rounds)
        _one_round(number, everyone, baseline, pace)
    number = pace.rounds
    while number < 2 * pace.rounds:
        unsettled = [one for one in others if not one.failure and not is_stable(one, baseline, pace.seed)]
        if not unsettled and is_stable(baseline, baseline, pace.seed):
            break
        names = ", ".join(one.id for one in unsettled) or baseline.id
        for _ in range(min(_EXTRA_BLOCK, 2 * pace.rounds - number)):
            progress(f"extra round for {names}, whose rounds disagree", number, 2 * pace.rounds)
            _one_round(number, [baseline, *unsettled], baseline, pace)
            number += 1
    progress("timed", pace.rounds, pace.rounds)


def _one_round(number: int, contestants: list[Contestant], baseline: Contestant, pace: Pace) -> None:
    alive = [one for one in contestants if not one.failure]
    first = number % len(alive)
    for one in alive[first:] + alive[:first]:
        try:
            answer = one.worker.ask("round", "being timed", pace.silence + pace.seconds, seconds=pace.seconds)
        except WorkerError as error:
            if one is baseline:
                raise
            one.failure = error
            continue
        one.rounds[number] = RoundTimes(answer["end_to_end_ms"], answer["model_ms"])


def ratios(one: Contestant, over: Contestant) -> npt.NDArray[np.float64]:
    """How many times faster `one` is than `over`, in each round that both ran; of itself: round over round before."""
    if one is over:
        return self_ratios(round_medians([times.end_to_end for times in one.rounds.values()]))
    shared = sorted(one.rounds.keys() & over.rounds.keys())
    return paired_ratios(
        round_medians([over.rounds[number].end_to_end for number in shared]),
        round_medians([one.rounds[number].end_to_end for number in shared]),
    )


def speedup(one: Contestant, over: Contestant, seed: int) -> Ratio:
    """The speed-up with its interval. Of the baseline over itself: exactly 1, with an interval as wide as the noise."""
    found = median_with_interval(ratios(one, over), seed)
    if one is over:
        return Ratio(ratio=1.0, ci_low=min(found.ci_low, 1.0), ci_high=max(found.ci_high, 1.0))
    return found


def is_stable(one: Contestant, baseline: Contestant, seed: int) -> bool:
    """Whether the rounds agree on the speed-up."""
    return rounds_agree(ratios(one, baseline), speedup(one, baseline, seed))
