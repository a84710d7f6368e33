"""One candidate in a process of its own: loads it, runs it when told, reports times and predictions.

``python -m components.benchmark.worker``: a JSON object a line on standard input, answers on standard output. Between
commands it is blocked on its input and uses no processor. Commands:

``load``      {variant, folder, job, bundle, threads, batch, task, annotations, media}
``warmup``    {seconds}: calls until they stop getting faster
``round``     {seconds}: timed calls
``accuracy``  {path}: predictions for every sample, written there; ``progress`` lines show that it is alive
``quit``

An answer is ``{"ok": {...}}`` or ``{"error": reason, "kind": "user" | "step" | "internal"}``.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from components.core.contracts.job import Job, Preprocess, Task
from components.core.contracts.variant import Variant
from components.core.errors import StepError, UserError
from components.core.runtimes.interface import Session, load_session
from components.core.tasks.adapter import Dataset, TaskAdapter, adapter_of, stack

MIN_CALLS = 3
"""Calls of a round at least, however slow they are."""
PRELOADED_SAMPLES, PRELOADED_BYTES = 16, 64 * 2**20
"""Decoded images that a round rotates through, at most; at least one."""
_WARM = 0.97
"""Warm when a window of calls takes more than this share of the best window before it."""
_ALIVE_SECONDS = 1.0


class Worker:
    """The candidate, once loaded, and the images it is timed on."""

    def __init__(self, answer: Callable[[dict[str, Any]], None]) -> None:
        self._answer = answer
        self._session: Session | None = None
        self._adapter: TaskAdapter | None = None
        self._split: Dataset | None = None
        self._batch = 1
        self._samples: list[Any] = []
        self._next_sample = 0

    def load(
        self,
        variant: dict[str, Any],
        folder: str,
        job: dict[str, Any] | None,
        bundle: str | None,
        threads: int,
        batch: int,
        task: dict[str, Any],
        annotations: str,
        media: str,
    ) -> dict[str, Any]:
        """Loads the model and decodes the samples of the rounds."""
        started = time.perf_counter()
        self._batch = batch
        self._adapter = adapter_of(
            Task(task["task"]),
            task["input_shape"],
            Preprocess.model_validate(task["preprocess"]),
            Path(bundle) if bundle else None,
        )
        self._split = self._adapter.read(Path(annotations), Path(media))
        self._samples = _preload(self._split)
        self._session = load_session(
            Variant.model_validate(variant),
            Path(folder),
            Job.model_validate(job) if job else None,
            Path(bundle) if bundle else None,
            threads,
        )
        return {"seconds": time.perf_counter() - started, "affinity": _affinity(), "timed_samples": len(self._samples)}

    def warmup(self, seconds: float) -> dict[str, Any]:
        """Calls in windows of three until a window is no faster than the best before it, or the time is up."""
        deadline = time.perf_counter() + seconds
        best, calls = float("inf"), 0
        while True:
            window = float(np.median([self._timed_call()[0] for _ in range(MIN_CALLS)]))
            calls += MIN_CALLS
            if window > _WARM * best or time.perf_counter() > deadline:
                break
            best = window
        gc.collect()
        return {"calls": calls, "end_to_end_ms": window}

    def round(self, seconds: float) -> dict[str, Any]:
        """Times calls for that long, after one untimed call that wakes threads and caches up."""
        self._timed_call()
        deadline = time.perf_counter() + seconds
        times: list[tuple[float, float]] = []
        while len(times) < MIN_CALLS or time.perf_counter() < deadline:
            times.append(self._timed_call())
        end_to_end, model = zip(*times, strict=True)
        return {"end_to_end_ms": end_to_end, "model_ms": model}

    def accuracy(self, path: str) -> dict[str, Any]:
        """Predictions for every sample of the split, batch after batch."""
        if self._split is None or self._adapter is None:
            raise StepError("nothing was loaded")
        found: dict[str, Any] = {}
        told = time.monotonic()
        for start in range(0, len(self._split.samples), self._batch):
            group = self._split.samples[start : start + self._batch]
            predictions, _ = self._predict([sample.load() for sample in group])
            found |= {sample.name: one for sample, one in zip(group, predictions, strict=True)}
            if time.monotonic() - told > _ALIVE_SECONDS:
                told = time.monotonic()
                self._answer({"progress": [len(found), len(self._split.samples)]})
        self._adapter.write_predictions(Path(path), found)
        return {"samples": len(found), "peak_rss_bytes": peak_rss_bytes()}

    def _timed_call(self) -> tuple[float, float]:
        """Milliseconds of one call, which is one batch: end to end, and in the model."""
        places = range(self._next_sample, self._next_sample + self._batch)
        samples = [self._samples[place % len(self._samples)] for place in places]
        self._next_sample += self._batch
        started = time.perf_counter()
        _, model = self._predict(samples)
        return round(1e3 * (time.perf_counter() - started), 4), round(1e3 * model, 4)

    def _predict(self, samples: Sequence[Any]) -> tuple[list[Any], float]:
        """Loaded samples in, predictions in their terms out; with the seconds that the model itself took.

        A batch is filled up with its last sample, whose further predictions nobody sees.
        """
        if self._session is None or self._adapter is None:
            raise StepError("nothing was loaded")
        adapter = self._adapter
        encoded, contexts = zip(*(adapter.encode(sample) for sample in samples), strict=True)
        batch = stack(encoded, self._batch)
        started = time.perf_counter()
        found = self._session.run(batch)
        model = time.perf_counter() - started
        pairs = zip(found[: len(samples)], contexts, strict=True)
        return [adapter.decode(one, context) for one, context in pairs], model


def _preload(split: Dataset) -> list[Any]:
    samples: list[Any] = []
    for sample in split.samples[:PRELOADED_SAMPLES]:
        samples.append(sample.load())
        if sum(getattr(one, "nbytes", 0) for one in samples) > PRELOADED_BYTES:
            break
    return samples


def peak_rss_bytes() -> int:
    """Peak resident memory of this process.

    `VmHWM` and not `ru_maxrss`: Linux carries the latter over from the process that started this one.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _affinity() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _claim_stdout() -> TextIO:
    """The real standard output, for answers only; whatever else prints there goes to standard error."""
    private = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return private


Answer = Callable[[dict[str, Any]], None]
Commands = dict[str, Callable[..., dict[str, Any]]]


def serve(make: Callable[[Answer], Commands]) -> None:
    """Answers commands until `quit` or the end of standard input.

    Args:
        make: gets what sends a message to the parent, and gives the commands by name.
    """
    out = _claim_stdout()

    def answer(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    commands = make(answer)
    for line in sys.stdin:
        fields = json.loads(line)
        command = fields.pop("command")
        if command == "quit":
            break
        try:
            answer({"ok": commands[command](**fields)})
        except UserError as error:
            answer({"error": str(error), "kind": "user"})
        except StepError as error:
            answer({"error": str(error), "kind": "step"})
        except Exception as error:
            text = " ".join(str(error).split())
            answer({"error": f"{type(error).__name__}: {text}", "kind": "internal"})
    # Runtimes can hang or crash while they are torn down, which says nothing about the candidate.
    sys.stderr.flush()
    os._exit(0)


def _commands(answer: Answer) -> Commands:
    worker = Worker(answer)
    return {"load": worker.load, "warmup": worker.warmup, "round": worker.round, "accuracy": worker.accuracy}


def main() -> None:
    """Serves one detector."""
    serve(_commands)


if __name__ == "__main__":
    main()
