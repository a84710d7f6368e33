"""Finds the thread setting in which eager torch is fastest here, so that the baseline is not made slow by neglect."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from components.benchmark.measure import Entry, Progress, Track, started
from components.benchmark.process import WorkerError

_ROUNDS = 3
_TIE = 0.97
"""A later setting must take less than this share of the best so far."""


def settings(threads: int) -> list[tuple[int, bool]]:
    """(threads, passive) to try, preferred first: many threads that sleep while they wait, that spin, and one thread.

    Spinning is what OpenMP does by default; on a machine that others use too, it can be many times slower.
    """
    return [(threads, True), (threads, False), (1, True)] if threads > 1 else [(1, True)]


def setting_name(threads: int, *, passive: bool) -> str:
    """``2 threads``, ``2 threads, spinning``."""
    return f"{threads} thread{'s' if threads > 1 else ''}{'' if passive else ', spinning'}"


def best_setting(entry: Entry, track: Track, progress: Progress) -> tuple[Entry, dict[str, float]]:
    """The entry with the fastest of the settings, and the p50 of each in ms, from short alternating rounds.

    Raises:
        WorkerError: the entry runs in none of the settings.
    """
    variants = {
        setting_name(threads, passive=passive): replace(
            entry,
            variant=entry.variant.model_copy(
                update={"id": f"{entry.variant.id}-{threads}{'' if passive else '-spin'}"}
            ),
            threads=threads,
            passive=passive,
        )
        for threads, passive in settings(entry.threads)
    }
    if len(variants) == 1:
        return entry, {}
    medians: dict[str, float] = {}
    errors: list[WorkerError] = []
    with started(list(variants.values()), track, progress) as contestants:
        calls: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(-1, _ROUNDS):
            for name, variant in variants.items():
                one = contestants[variant.variant.id]
                if one.failure:
                    continue
                progress(f"trying {entry.variant.id} with {name}", max(number, 0), _ROUNDS)
                command, seconds = ("warmup", track.warmup_seconds) if number < 0 else ("round", track.pace.seconds)
                try:
                    answer = one.worker.ask(command, "trying threads", track.pace.silence + seconds, seconds=seconds)
                except WorkerError as error:
                    one.failure = error
                    continue
                if command == "round":
                    calls[name].append(float(np.median(answer["end_to_end_ms"])))
        errors = [one.failure for one in contestants.values() if one.failure]
        medians = {
            name: float(np.median(times))
            for name, times in calls.items()
            if times and not contestants[variants[name].variant.id].failure
        }
    if not medians:
        raise errors[0]
    chosen = variants[preferred(list(medians.items()))]
    return replace(entry, threads=chosen.threads, passive=chosen.passive), medians


def preferred(timed: Sequence[tuple[str, float]]) -> str:
    """The fastest setting; among near-ties the one that is named first."""
    best_name, best = timed[0]
    for name, milliseconds in timed[1:]:
        if milliseconds < _TIE * best:
            best_name, best = name, milliseconds
    return best_name
