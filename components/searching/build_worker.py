"""Makes one untrained entrant fit for the target: ``python -m components.searching.build_worker REQUEST ANSWER``.

Export, surgery and INT8 as in `compress`, without what only a trained model can answer: parity, trimming, accuracy.
"""

import json
import sys
from pathlib import Path
from typing import Any

from components.core.contracts.base import Contract
from components.core.contracts.job import Job
from components.core.contracts.variant import Manifest
from components.core.errors import StepError, UserError
from components.core.tensorrt_tools.modules import MODULES
from components.engine.run import run_engine
from components.export.run import export_untrained
from components.int8.run import run_int8
from components.surgery.run import run_surgery

CALIBRATION_SAMPLES = 8
"""Enough to know ranges that make INT8 run; how accurate it is nobody asks."""


class BuildRequest(Contract):
    """Which entrant to make fit, and whether in INT8 too."""

    job: Job
    bundle: Path
    out: Path
    int8: bool


def build(request: BuildRequest) -> list[dict[str, Any]]:
    """The entrant's forms, each a variant and the folder that its file is in."""
    job, out = request.job, request.out
    export_untrained(job, request.bundle, out / "exported")
    run_surgery(job, out / "exported", out / "surgered")
    forms = _forms(job, out / "surgered")
    if request.int8:
        quick = {"calibration_images": CALIBRATION_SAMPLES, "calibration_time": 1e-3, "control_images": 0}
        hasty = job.model_copy(update={"budget": job.budget.model_copy(update=quick)})
        run_int8(hasty, out / "surgered", request.bundle, out / "int8")
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
    """Writes the forms, or the reason why there are none."""
    request = BuildRequest.model_validate_json(Path(question).read_text())
    try:
        found: dict[str, Any] = {"forms": build(request)}
    except (UserError, StepError) as error:
        found = {"reason": " ".join(str(error).split())}
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
