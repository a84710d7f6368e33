"""Runs the rung in processes that are killed: `python distill_lives.py FOLDER STEPS_OF_DEATH`.

The first life ends while the teacher is asked, the others in the middle of a step.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from distill_jobs import STUDENTS, make_bundle

from components.core.training import detection
from components.distill import answers, run
from components.distill import detection as distilling
from components.distill.teachers import OpenTeacher

LOSS = detection.detection_loss
ASK = OpenTeacher.answers
WHILE_ASKED = 0
ANSWERED = 8
"""Images that the first life has answers about."""


def live(folder: Path, death: int | None, name: str) -> None:
    calls = {"steps": 0, "questions": 0}

    def mortal(module: Any, batch: Any) -> Any:
        calls["steps"] += 1
        if calls["steps"] == death:
            os.kill(os.getpid(), signal.SIGKILL)
        return LOSS(module, batch)

    def asked(teacher: OpenTeacher, inputs: Any) -> Any:
        calls["questions"] += 1
        if death == WHILE_ASKED and calls["questions"] == ANSWERED + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return ASK(teacher, inputs)

    distilling.detection_loss = mortal
    OpenTeacher.answers = asked  # type: ignore[method-assign]
    answers._SHARD = 1  # so that 13 images are several files
    os.environ["HASTEN_CACHE"] = str(folder / f"cache-{name}")
    settings = {"student": STUDENTS["detection"]}
    job, bundle = make_bundle(
        folder / f"job-{name}", "detection", settings, epochs=4, precision="fp16", checkpoint_every="0.0001 s"
    )
    card, _ = run.run_distill(job, bundle, folder / name)
    assert card.status == "ok", card.reason
    assert card.lessons is not None
    known = f"{card.lessons.answers_reused} of {card.lessons.answers} answers known"
    print(name, "resumed at", f"{' '.join(map(str, card.resumed_at))},", known, flush=True)


def kept(folder: Path) -> int:
    return len(list((folder / "cache-killed" / "answers").rglob("*.safetensors")))


def main(folder: Path, deaths: list[int]) -> None:
    lives = [("whole", None), ("killed", WHILE_ASKED), *(("killed", death) for death in deaths), ("killed", None)]
    for name, death in lives:
        child = os.fork()
        if child == 0:
            live(folder, death, name)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed by", os.WTERMSIG(status), "with", kept(folder), "files of answers", flush=True)
        elif os.WEXITSTATUS(status):
            sys.exit(f"the life that was to end with {death} failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(death) for death in sys.argv[2].split(",")])
