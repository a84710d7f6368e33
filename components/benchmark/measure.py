"""Measures variants against a baseline: starts a process for each, warms up, runs the rounds, scores the accuracy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.benchmark.process import WorkerError, WorkerProcess
from components.benchmark.rounds import Contestant, Pace, is_stable, run_rounds, speedup
from components.core.contracts.job import Job, Metric, Preprocess, Task
from components.core.contracts.leaderboard import Latency, Ratio
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.tasks.adapter import MEDIA, Dataset, TaskAdapter

Progress = Callable[[str, float | None, float | None], None]


@dataclass(frozen=True)
class Entry:
    """A variant to measure, in the folder of its manifest, with the threads it gets."""

    variant: Variant
    folder: Path
    threads: int
    passive: bool = True
    """Whether OpenMP threads sleep while they wait."""
    size: tuple[int, int] | None = None
    """Height and width of the model's input in pixels, where they differ from the track's."""


@dataclass(frozen=True)
class Track:
    """Where and how long it is measured: the same for every entry."""

    adapter: TaskAdapter
    split: Dataset
    input_shape: tuple[int, ...]
    """Of the job's target; the first side is the batch."""
    out: Path
    pace: Pace
    media: Path | None = None
    """Folder of the samples' files; default: the one beside the split's own file."""
    job: Job | None = None
    bundle: Path | None = None
    warmup_seconds: float = 5.0
    load_silence: float = 600.0
    """Seconds that loading and compiling a model may take."""

    @property
    def batch(self) -> int:
        """Samples of one call."""
        return self.input_shape[0]


@dataclass
class Measured:
    """What was found out about one entry; with a `failure` the numbers are missing."""

    entry: Entry
    failure: str = ""
    user_error: bool = False
    latency: Latency | None = None
    model_latency: Latency | None = None
    speedup: Ratio | None = None
    yardstick: "Measured | None" = None
    """What it was also compared with, in the same rounds."""
    over_yardstick: Ratio | None = None
    """How many times faster than the yardstick."""
    throughput: float | None = None
    stable: bool = False
    rounds: int = 0
    batch: int = 1
    """Samples of one call; latencies are those of a call."""
    scores: dict[Metric, float] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    detections: Path | None = None
    raw: dict[str, Any] = field(default_factory=dict)
    """Numbers for `measurement.json`."""


def measure(
    baseline: Entry,
    candidates: Sequence[Entry],
    track: Track,
    progress: Progress,
    *,
    yardstick: Entry | None = None,
    score_baseline: bool = True,
    each: Callable[[Measured], None] | None = None,
) -> dict[str, Measured]:
    """Measures the baseline and all candidates side by side.

    Args:
        baseline: what the speed-ups are over.
        candidates: the others. One that fails does not disturb the rest.
        track: images and pace.
        progress: told what is going on.
        yardstick: timed along, so that candidates can be compared with it too; it may be one of the candidates.
        score_baseline: also measure the baseline's accuracy, and tell `each` about it.
        each: called with every result as soon as it is complete.

    Returns:
        Id -> result, for the baseline, every candidate and the yardstick.

    Raises:
        WorkerError: the baseline failed.
    """
    extra = [yardstick] if yardstick and all(yardstick.variant.id != one.variant.id for one in candidates) else []
    entries = {one.variant.id: one for one in (baseline, *candidates, *extra)}
    results = {name: Measured(entry) for name, entry in entries.items()}
    with started(list(entries.values()), track, progress) as contestants:
        _warm_up(contestants, results, track, progress)
        first = contestants[baseline.variant.id]
        if first.failure:
            raise first.failure
        others = [one for one in contestants.values() if one is not first and not one.failure]
        run_rounds(first, others, track.pace, progress)
        other = contestants.get(yardstick.variant.id) if yardstick else None
        for one in contestants.values():
            _take_times(results[one.id], one, first, track.pace.seed)
            if other and other is not one and not other.failure and not one.failure:
                results[one.id].yardstick = results[other.id]
                results[one.id].over_yardstick = speedup(one, other, track.pace.seed)
        for entry in (baseline, *candidates) if score_baseline else candidates:
            result, one = results[entry.variant.id], contestants[entry.variant.id]
            if not one.failure:
                progress(f"accuracy of {one.id}", None, None)
                _take_accuracy(result, one, track)
            if one.failure:
                if entry is baseline:
                    raise one.failure
                result.failure, result.user_error = str(one.failure), one.failure.user
            if each:
                each(result)
    return results


def measure_latency(
    baseline: Entry, candidates: Sequence[Entry], track: Track, progress: Progress
) -> dict[str, Measured]:
    """Times the baseline and all candidates side by side, and asks none for its accuracy: untrained models have none.

    Args:
        baseline: what the speed-ups are over.
        candidates: the others. One that fails does not disturb the rest.
        track: images and pace.
        progress: told what is going on.

    Returns:
        Id -> result, for the baseline and every candidate.

    Raises:
        WorkerError: the baseline failed.
    """
    entries = {one.variant.id: one for one in (baseline, *candidates)}
    results = {name: Measured(entry) for name, entry in entries.items()}
    with started(list(entries.values()), track, progress) as contestants:
        _warm_up(contestants, results, track, progress)
        first = contestants[baseline.variant.id]
        if first.failure:
            raise first.failure
        run_rounds(first, [one for one in contestants.values() if one is not first], track.pace, progress)
        for name, one in contestants.items():
            _take_times(results[name], one, first, track.pace.seed)
            if one.failure:
                results[name].failure, results[name].user_error = str(one.failure), one.failure.user
    return results


@contextmanager
def started(entries: Sequence[Entry], track: Track, progress: Progress) -> Iterator[dict[str, Contestant]]:
    """Processes with the entries loaded, in order; one that could not load has a `failure`."""
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for entry in entries:
            log = track.out / "logs" / f"{entry.variant.id}.log"
            worker = stack.enter_context(WorkerProcess(log, entry.threads, passive=entry.passive))
            contestants[entry.variant.id] = Contestant(entry.variant.id, worker, track.batch)
        # All import and load at once; that is not timed.
        for entry in entries:
            one = contestants[entry.variant.id]
            try:
                one.worker.send("load", "loading the model", **_load_fields(entry, track))
            except WorkerError as error:
                one.failure = error
        for number, one in enumerate(contestants.values()):
            progress(f"loading {one.id}", number, len(contestants))
            if one.failure:
                continue
            try:
                one.worker.receive("loading the model", track.load_silence)
            except WorkerError as error:
                one.failure = error
        yield contestants


def _load_fields(entry: Entry, track: Track) -> dict[str, Any]:
    return {
        "variant": entry.variant.model_dump(mode="json"),
        "folder": str(entry.folder.resolve()),
        "job": track.job.model_dump(mode="json") if track.job else None,
        "bundle": str(track.bundle.resolve()) if track.bundle else None,
        "threads": entry.threads,
        "batch": track.batch,
        "task": {
            "task": track.job.task if track.job else Task.DETECTION,
            "input_shape": (*track.input_shape[:2], *entry.size) if entry.size else track.input_shape,
            "preprocess": (track.job.preprocess if track.job else Preprocess()).model_dump(mode="json"),
        },
        "annotations": str(track.split.annotations.resolve()),
        "media": str((track.media or track.split.annotations.parent / MEDIA).resolve()),
    }


def _warm_up(
    contestants: dict[str, Contestant], results: dict[str, Measured], track: Track, progress: Progress
) -> None:
    for number, one in enumerate(contestants.values()):
        if one.failure:
            continue
        progress(f"warming {one.id} up", number, len(contestants))
        silence = track.pace.silence + track.warmup_seconds
        try:
            answer = one.worker.ask("warmup", "warming up", silence, seconds=track.warmup_seconds)
        except WorkerError as error:
            one.failure = error
            continue
        results[one.id].raw["warm_up"] = answer


def _take_times(result: Measured, one: Contestant, baseline: Contestant, seed: int) -> None:
    result.raw["rounds"] = {
        str(number): {"end_to_end_ms": times.end_to_end, "model_ms": times.model}
        for number, times in one.rounds.items()
    }
    if one.failure:
        return
    result.latency, result.model_latency = one.latency(), one.model_latency()
    result.throughput = one.throughput()
    result.speedup, result.stable = speedup(one, baseline, seed), is_stable(one, baseline, seed)
    result.rounds, result.batch = len(one.rounds), one.batch


def _take_accuracy(result: Measured, one: Contestant, track: Track) -> None:
    path = track.out / "detections" / f"{one.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        answer = one.worker.ask(
            "accuracy", "predicting on the test split", track.pace.silence, path=str(path.resolve())
        )
        result.peak_rss_bytes, result.detections = answer["peak_rss_bytes"], path
        result.scores = track.adapter.evaluate(track.adapter.read_predictions(path), track.split)
    except WorkerError as error:
        one.failure = error
    except StepError as error:
        one.failure = WorkerError(str(error))
