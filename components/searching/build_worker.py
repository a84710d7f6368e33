"""Makes untrained entrants fit for the target: ``python -m components.searching.build_worker REQUEST ANSWER``.

Export, surgery and INT8 as in `compress`, without what only a trained model can answer: parity, trimming, accuracy.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from components.core.contracts.base import Contract
from components.core.contracts.job import Job
from components.core.contracts.variant import Manifest
from components.core.errors import StepError, UserError
from components.core.files import write_json_atomic
from components.core.stepping import is_disk_full, progress
from components.core.tensorrt_tools.modules import MODULES
from components.engine.run import run_engine
from components.export.run import export_untrained
from components.int8.run import run_int8
from components.surgery.run import run_surgery

CALIBRATION_SAMPLES = 8
"""Enough to know ranges that make INT8 run; how accurate it is nobody asks."""


class Task(Contract):
    """One entrant to make fit, and whether in INT8 too."""

    id: str
    job: Job
    bundle: Path
    out: Path
    int8: bool


def build(task: Task) -> list[dict[str, Any]]:
    """The entrant's forms, each a variant and the folder that its file is in."""
    job, out = task.job, task.out
    export_untrained(job, task.bundle, out / "exported")
    run_surgery(job, out / "exported", out / "surgered")
    forms = _forms(job, out / "surgered")
    if task.int8:
        quick = {"calibration_images": CALIBRATION_SAMPLES, "calibration_time": 1e-3, "control_images": 0}
        hasty = job.model_copy(update={"budget": job.budget.model_copy(update=quick)})
        run_int8(hasty, out / "surgered", task.bundle, out / "int8")
        forms += [form for form in _forms(job, out / "int8") if form["variant"]["id"].startswith("int8-")]
    return forms


def _forms(job: Job, folder: Path) -> list[dict[str, Any]]:
    if any(runtime in MODULES for runtime in job.target.runtimes):
        engines = folder.with_name(f"{folder.name}-engines")
        run_engine(job, folder, engines)
        folder = engines
    manifest = Manifest.read(folder)
    return [
        {"variant": variant.model_dump(mode="json"), "folder": str(folder.resolve())} for variant in manifest.variants
    ]


def main(question: str, answer: str) -> None:
    """Writes every entrant's forms, or why it has none, at once: the next one may end the process."""
    tasks = [Task.model_validate(fields) for fields in json.loads(Path(question).read_text())["tasks"]]
    found: dict[str, dict[str, Any]] = {}
    for number, task in enumerate(tasks):
        progress(f"making {task.id} fit for the target", number, len(tasks))
        began = time.perf_counter()
        try:
            made: dict[str, Any] = {"forms": build(task)}
        except Exception as error:  # of whatever library
            if is_disk_full(error):
                raise
            words = " ".join(str(error).split())[:300]
            ours = isinstance(error, UserError | StepError)
            made = {"reason": words if ours else f"{type(error).__name__}: {words}"}
        found[task.id] = made | {"seconds": time.perf_counter() - began}
        write_json_atomic(Path(answer), found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
