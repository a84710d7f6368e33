"""As `worker`, for a model of any kind: arrays in, arrays out.

``python -m components.benchmark.tensor_worker``. Commands:

``load``      {runtime, file, options, threads, feeds, model}: an .npz file, and the ONNX file it is for
``warmup``    {seconds}
``round``     {seconds}
``outputs``   {path}: the outputs of every call, written there as .npz (``0/0``: call, output)
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.benchmark.worker import MIN_CALLS, Answer, Commands, peak_rss_bytes, serve
from components.core.contracts.job import Runtime
from components.core.errors import StepError
from components.core.feeds import Feed, read_feeds
from components.core.runtimes.tensors import load_tensors

_TIMED_CALLS = 16
"""Inputs that the rounds rotate through."""
_WARM = 0.97


class TensorWorker:
    """The model, once loaded, and what it is fed with."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.call: Callable[[Feed], list[npt.NDArray[Any]]] | None = None
        self.feeds: list[Feed] = []
        self._next = 0

    def load(
        self, runtime: str, file: str, options: dict[str, Any], threads: int, feeds: str, model: str
    ) -> dict[str, Any]:
        """Loads the model and its inputs."""
        started = time.perf_counter()
        self.feeds, _ = read_feeds(Path(feeds), Path(model))
        self.call = load_tensors(Runtime(runtime), Path(file), threads, options)
        return {"seconds": time.perf_counter() - started}

    def warmup(self, seconds: float) -> dict[str, Any]:
        """Calls in windows of three until a window is no faster than the best before it, or the time is up."""
        deadline = time.perf_counter() + seconds
        best, calls = float("inf"), 0
        while True:
            window = float(np.median([self._timed()[0] for _ in range(MIN_CALLS)]))
            calls += MIN_CALLS
            if window > _WARM * best or time.perf_counter() > deadline:
                return {"calls": calls, "end_to_end_ms": window}
            best = window

    def round(self, seconds: float) -> dict[str, Any]:
        """Times calls for that long, after one untimed call.

        ``model_ms`` is the processor time of all threads: on a machine that others use too it says more than the
        clock on the wall, which runs on while the process waits for its turn.
        """
        self._timed()
        deadline = time.perf_counter() + seconds
        times: list[tuple[float, float]] = []
        while len(times) < MIN_CALLS or time.perf_counter() < deadline:
            times.append(self._timed())
        wall, processor = zip(*times, strict=True)
        return {"end_to_end_ms": wall, "model_ms": processor}

    def outputs(self, path: str) -> dict[str, Any]:
        """All outputs for all inputs."""
        found = {
            f"{number}/{place}": np.array(value)
            for number, feed in enumerate(self.feeds)
            for place, value in enumerate(self._run(feed))
        }
        np.savez(path, **found)  # type: ignore[arg-type]
        return {"calls": len(self.feeds), "peak_rss_bytes": peak_rss_bytes()}

    def _run(self, feed: Feed) -> list[npt.NDArray[Any]]:
        if self.call is None:
            raise StepError("nothing was loaded")
        return self.call(feed)

    def _timed(self) -> tuple[float, float]:
        """Milliseconds of one call: on the wall, and of processor time."""
        feed = self.feeds[self._next % min(len(self.feeds), _TIMED_CALLS)]
        self._next += 1
        started, used = time.perf_counter(), time.process_time()
        self._run(feed)
        wall, processor = time.perf_counter() - started, time.process_time() - used
        return round(1e3 * wall, 4), round(1e3 * processor, 4)


def commands(worker: TensorWorker) -> Commands:
    """What it can be told."""
    return {"load": worker.load, "warmup": worker.warmup, "round": worker.round, "outputs": worker.outputs}


if __name__ == "__main__":
    serve(lambda answer: commands(TensorWorker(answer)))
