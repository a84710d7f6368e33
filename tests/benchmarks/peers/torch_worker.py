"""The torch module itself, eager or compiled, as `components.benchmark.tensor_worker`.

``load``: {model, feeds, file, samples, threads, compiled}: the name in `zoo.NAMES`, the ONNX file
in its folder.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import zoo

from components.benchmark.tensor_worker import TensorWorker, commands
from components.benchmark.worker import serve
from components.core.feeds import Feed, read_feeds


class TorchWorker(TensorWorker):
    """A torch module in the place of a file."""

    def load_torch(
        self, model: str, file: str, feeds: str, samples: str, threads: int, compiled: bool
    ) -> dict[str, Any]:
        """Builds the module, and compiles it where that is asked for."""
        import torch

        started = time.perf_counter()
        torch.set_num_threads(threads)
        self.feeds, _ = read_feeds(Path(feeds), Path(file))
        module = zoo.module(zoo.BenchModel(model, Path(file).parent), Path(samples))
        run = torch.compile(module) if compiled else module
        listed = model in zoo.DETECTORS

        def call(feed: Feed) -> list[Any]:
            with torch.inference_mode():
                tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in feed.values()]
                found = run(list(tensors[0])) if listed else run(*tensors)
            if listed:
                return [found[0][name].numpy() for name in ("boxes", "scores", "labels")]
            return [found.numpy()]

        self.call = call
        call(self.feeds[0])
        return {"seconds": time.perf_counter() - started}


def _commands(answer: Any) -> Any:
    worker = TorchWorker(answer)
    return commands(worker) | {"load": worker.load_torch}


if __name__ == "__main__":
    serve(_commands)
