"""Measures models of any kind side by side: arrays in, arrays out, one process each, alternating rounds."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.benchmark.process import WorkerError, WorkerProcess
from components.benchmark.rounds import Contestant, Pace, RoundTimes, run_rounds, speedup
from components.benchmark.stats import median_with_interval, paired_ratios, round_medians
from components.core.contracts.leaderboard import Latency, Ratio

Progress = Callable[[str, float | None, float | None], None]
Outputs = list[list[npt.NDArray[Any]]]
_LOAD_SILENCE, _WARM_UP_SECONDS = 600.0, 3.0


@dataclass(frozen=True)
class Racer:
    """One model in one runtime."""

    id: str
    load: dict[str, Any]
    """Fields of the worker's command ``load``."""
    module: str = "components.benchmark.tensor_worker"


@dataclass
class Timed:
    """What was found out about a racer; with a `failure` the numbers are missing."""

    id: str
    failure: str = ""
    latency: Latency | None = None
    """On the wall."""
    processor: Latency | None = None
    """Processor time of a call, all threads together."""
    speedup: Ratio | None = None
    """Over the first racer."""
    outputs: Outputs = field(default_factory=list)
    """Of every call."""
    peak_rss_bytes: int | None = None
    rounds: dict[int, RoundTimes] = field(default_factory=dict)
    """By number; rounds of one number belong together."""

    def over(self, other: "Timed", *, processor: bool, seed: int = 0) -> Ratio:
        """How many times faster than `other`, in the rounds that both ran.

        Args:
            other: the yardstick.
            processor: compare processor time instead of time on the wall.
            seed: of the bootstrap.
        """
        shared = sorted(self.rounds.keys() & other.rounds.keys())
        mine, its = (
            round_medians([one.rounds[n].model if processor else one.rounds[n].end_to_end for n in shared])
            for one in (self, other)
        )
        return median_with_interval(paired_ratios(its, mine), seed)


def race(
    racers: Sequence[Racer],
    out: Path,
    threads: int,
    pace: Pace,
    progress: Progress,
    *,
    outputs: bool = True,
) -> dict[str, Timed]:
    """Times all racers; ratios are over the first one.

    Args:
        racers: the baseline first.
        out: folder for logs and outputs.
        threads: CPU threads of each.
        pace: rounds and their length.
        progress: told what is going on.
        outputs: also run every input once and keep what comes out.

    Raises:
        WorkerError: the baseline failed.
    """
    results = {one.id: Timed(one.id) for one in racers}
    with ExitStack() as stack:
        contestants: list[Contestant] = []
        for number, racer in enumerate(racers):
            progress(f"loading {racer.id}", number, len(racers))
            log = out / "logs" / f"{racer.id}.log"
            worker = stack.enter_context(WorkerProcess(log, threads, passive=True, module=racer.module))
            one = Contestant(racer.id, worker)
            contestants.append(one)
            try:
                worker.ask("load", "loading the model", _LOAD_SILENCE, **racer.load)
                worker.ask("warmup", "warming up", _LOAD_SILENCE, seconds=_WARM_UP_SECONDS)
            except WorkerError as error:
                one.failure = error
        first = contestants[0]
        if first.failure:
            raise first.failure
        run_rounds(first, [one for one in contestants[1:] if not one.failure], pace, progress)
        for one in contestants:
            result = results[one.id]
            if not one.failure and outputs:
                _take_outputs(result, one, out / f"{one.id}.npz")
            if one.failure:
                result.failure = str(one.failure)
                continue
            result.latency = one.latency()
            result.speedup = speedup(one, first, pace.seed)
            result.processor = one.model_latency()
            result.rounds = one.rounds
    return results


def _take_outputs(result: Timed, one: Contestant, path: Path) -> None:
    try:
        answer = one.worker.ask("outputs", "running all inputs", _LOAD_SILENCE, path=str(path.resolve()))
    except WorkerError as error:
        one.failure = error
        return
    result.peak_rss_bytes = answer["peak_rss_bytes"]
    with np.load(path, allow_pickle=False) as arrays:
        calls = 1 + max(int(name.partition("/")[0]) for name in arrays.files)
        places = 1 + max(int(name.partition("/")[2]) for name in arrays.files)
        result.outputs = [[arrays[f"{call}/{place}"] for place in range(places)] for call in range(calls)]
    path.unlink()
