"""Takes a few training steps: ``python -m components.amp.cost_worker REQUEST.json ANSWER.json``."""

import json
import resource
import sys
from pathlib import Path

import torch

from components.core.training.journal import WARM
from components.core.training.processes import run_training
from components.core.training.request import Request

ENOUGH = 30.0
"""Seconds of steps after which a process has measured enough."""


def main(question: str, answer: str) -> None:
    """Writes the counted steps' times in milliseconds and the peak memory in bytes."""
    request = Request.model_validate_json(Path(question).read_text())
    # As many epochs as the steps need: the data may be few. A large model takes fewer steps.
    limits = {"epochs": request.steps, "max_time": ENOUGH, "max_core_time": None}
    epochs = request.job.training.model_copy(update=limits)
    request = request.model_copy(update={"job": request.job.model_copy(update={"training": epochs})})
    done = run_training(request)
    if done.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    times = [1e3 * seconds for seconds in done.journal.step_seconds[WARM:]]
    Path(answer).write_text(json.dumps({"step_ms": times, "peak_bytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
