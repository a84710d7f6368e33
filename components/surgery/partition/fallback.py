"""What is done about a model that its runtime refuses even after surgery: a run plan beside it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.core.contracts.run_plan import RUN_PLAN
from components.core.errors import StepError, UserError
from components.core.stepping import progress
from components.surgery.partition.run import TIME_LIMIT, partition
from components.surgery.report import SurgeryReport
from components.surgery.surgery import TENSORRT_TARGETS

PLAN = "plan"
"""Folder of the plan, beside the model."""


def fallback(
    report: SurgeryReport, model: Path, inputs: Sequence[Path] = (), time_limit: float = TIME_LIMIT
) -> SurgeryReport:
    """Writes ``plan/`` beside the model where TensorRT refuses it as a whole.

    Args:
        report: of the operation, with what the runtime says of the result.
        model: the operated model.
        inputs: `.npz` files with real inputs for the plan's proof.
        time_limit: seconds.

    Returns:
        The report; its `plan` says what the plan is, or why there is none, and is empty where none is needed.
    """
    if report.target not in TENSORRT_TARGETS or report.after is None or report.after.accepted:
        return report
    progress(f"partitioning for {report.target}")
    folder = model.parent / PLAN
    try:
        plan = partition(model, report.target, folder, inputs, time_limit=time_limit)
    except (StepError, UserError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return report.model_copy(update={"plan": f"no run plan: {error}"})
    if not plan.engine_parts:
        shutil.rmtree(folder)
        return report.model_copy(update={"plan": "no run plan: no part of it is worth an engine; use ONNX Runtime"})
    if len(plan.parts) == 1:
        # What was only held against it, by documentation for instance, does not keep it out.
        shutil.rmtree(folder)
        return report
    return report.model_copy(update={"plan": f"{PLAN}/{RUN_PLAN}: {plan.summary()}"})
