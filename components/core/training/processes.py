"""One training as a rung runs it: in this process, or in each of several that torchrun started."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.core.errors import StepError
from components.core.models import load_torch_model
from components.core.training.bundle import WEIGHTS, write_weights
from components.core.training.checkpoints import Checkpoints
from components.core.training.loop import Trained, train
from components.core.training.request import Request
from components.core.training.stopping import StoppedError, stop_requests
from components.core.training.task import training_task

OUTCOME = "trained.json"
WORKER = "components.core.training.worker"
_LOOK_EVERY = 0.2
"""Seconds between two looks at the processes."""
_GRACE = 120.0
"""Seconds that they have to write a checkpoint when they are asked to stop."""


def run_training(request: Request) -> Trained:
    """Trains the job's model; the first process writes the weights and `trained.json` into `request.out`."""
    job = request.job
    task = training_task(job, request.bundle)
    module = load_torch_model(job.model, request.bundle / "model")
    settings = job.training.model_copy(update={"precision": request.precision})
    checkpoints = Checkpoints(request.checkpoint_uri, request.identity) if request.checkpoint_uri else None
    done = train(
        module,
        task.loss,
        task.loader,
        settings,
        seed=job.budget.seed,
        checkpoints=checkpoints,
        device=request.device,
        max_steps=request.steps,
    )
    if done.first and request.out is not None:
        write_weights(module, request.out / WEIGHTS)
        (request.out / OUTCOME).write_text(json.dumps(asdict(done) | {"step_ms": done.journal.step_ms()}))
    return done


def run_trainings(request: Request, processes: int) -> dict[str, Any]:
    """Trains in that many processes on this machine; returns what `trained.json` says.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        DivergedError: the gradients are no numbers any more.
        StepError: the processes could not do it.
        UserError: the settings do not fit the data or the machine.
    """
    if request.out is None:
        raise ValueError("a training needs a folder to write to")
    if processes == 1:
        run_training(request)
    else:
        _run_apart(request, processes)
    found: dict[str, Any] = json.loads((request.out / OUTCOME).read_text())
    return found


def _run_apart(request: Request, processes: int) -> None:
    with tempfile.TemporaryDirectory() as temporary, stop_requests() as asked:
        question, log = Path(temporary) / "request.json", Path(temporary) / "log.txt"
        question.write_text(request.model_dump_json())
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        with log.open("wb") as stream:
            group = subprocess.Popen(
                [sys.executable, *launcher, "-m", WORKER, str(question)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            try:
                while group.poll() is None and not asked():
                    time.sleep(_LOOK_EVERY)
                if group.poll() is None:
                    group.terminate()  # torchrun hands it on; the processes write a checkpoint at their next step
                    group.wait(_GRACE)
            finally:
                if group.poll() is None:
                    group.kill()
                    group.wait()
        if asked():
            raise StoppedError(f"training stopped; the same command goes on ({request.checkpoint_uri})", asked())
        if group.returncode != 0:
            raise StepError(f"{processes} training processes ended with code {group.returncode}: {_last_words(log)}")


def _last_words(log: Path) -> str:
    """The line in which a process said why: our own errors are printed as one line each."""
    lines = [" ".join(line.split()) for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "Error: " in line and "ChildFailedError" not in line]
    return (said or lines or ["nothing was said"])[-1 if not said else 0][:300]
