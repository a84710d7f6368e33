"""Runs the rung in processes that are killed in the middle of a step: `python amp_lives.py FOLDER STEPS_OF_DEATH`."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from amp_jobs import make_bundle

from components.amp import run
from components.core.training import detection

LOSS = detection.detection_loss


def live(folder: Path, death: int | None, name: str) -> None:
    calls = 0

    def mortal(module: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == death:
            os.kill(os.getpid(), signal.SIGKILL)
        return LOSS(module, batch)

    detection.detection_loss = mortal
    run.measure_costs = lambda *_: (None, None)  # its processes have nothing to do with what is tested
    os.environ["HASTEN_CACHE"] = str(folder / f"cache-{name}")
    job, bundle = make_bundle(folder / "job", epochs=3, precision="fp16", checkpoint_every="0.0001 s")
    card, _ = run.run_amp(job, bundle, folder / name)
    assert card.status == "ok", card.reason
    print(name, "resumed at", *card.resumed_at, flush=True)


def main(folder: Path, deaths: list[int]) -> None:
    make_bundle(folder / "job")
    for name, death in [("whole", None), *(("killed", death) for death in deaths), ("killed", None)]:
        child = os.fork()
        if child == 0:
            live(folder, death, name)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed by", os.WTERMSIG(status), flush=True)
        elif os.WEXITSTATUS(status):
            sys.exit(f"the life that was to end with {death} failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(death) for death in sys.argv[2].split(",")])
