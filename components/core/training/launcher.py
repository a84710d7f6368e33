"""Several training processes on this machine, started by torchrun and stopped together."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from components.core.errors import StepError
from components.core.training.stopping import StoppedError, stop_requests

_LOOK_EVERY = 0.2
"""Seconds between two looks at the processes."""
_GRACE = 120.0
"""Seconds that they have to write a checkpoint when they are asked to stop."""


def train_in_processes(worker: str, request: str, processes: int, checkpoint_uri: str) -> None:
    """Runs `python -m WORKER REQUEST.json` under torchrun and waits for its end.

    Args:
        worker: the module.
        request: what the processes are told, as JSON.
        processes: how many.
        checkpoint_uri: where they keep their checkpoint, for the message.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        StepError: the processes could not do it.
    """
    with tempfile.TemporaryDirectory() as temporary, stop_requests() as asked:
        question, log = Path(temporary) / "request.json", Path(temporary) / "log.txt"
        question.write_text(request)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        with log.open("wb") as stream:
            group = subprocess.Popen(
                [sys.executable, *launcher, "-m", worker, str(question)],
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
            raise StoppedError(f"training stopped; the same command goes on ({checkpoint_uri})", asked())
        if group.returncode != 0:
            raise StepError(f"{processes} training processes ended with code {group.returncode}: {_last_words(log)}")


def _last_words(log: Path) -> str:
    """The line in which a process said why: our own errors are printed as one line each."""
    lines = [" ".join(line.split()) for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "Error: " in line and "ChildFailedError" not in line]
    return (said or lines or ["nothing was said"])[-1 if not said else 0][:300]
