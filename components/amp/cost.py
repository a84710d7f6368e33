"""What a training step costs in FP32 and in mixed precision: a few real steps, each time in a process of its own."""

import statistics
from typing import Any

from components.core.apart import DiedError, run_apart
from components.core.contracts.job import Precision
from components.core.contracts.training import StepCost
from components.core.stepping import progress
from components.core.training.journal import WARM
from components.core.training.request import Request

STEPS = 6
"""Counted steps of a process."""
ROUNDS = 2
"""How often the precisions take turns."""
TIME_LIMIT = 900.0
"""Seconds for one process."""


def measure_costs(request: Request, mixed: Precision) -> tuple[StepCost, StepCost]:
    """FP32 and `mixed`, side by side: their processes alternate, so that a busy minute hits both.

    Args:
        request: what to train; its precision, steps and output are replaced.
        mixed: the other precision.
    """
    answers: dict[Precision, list[dict[str, Any]]] = {Precision.FP32: [], mixed: []}
    reasons: dict[Precision, str] = {}
    for turn in range(ROUNDS):
        for number, precision in enumerate(answers):
            progress(f"measuring a step in {precision}", turn * len(answers) + number, ROUNDS * len(answers))
            asked = request.model_copy(
                update={"precision": precision, "steps": STEPS + WARM, "out": None, "checkpoint_uri": ""}
            )
            try:
                answers[precision].append(
                    run_apart("components.amp.cost_worker", asked.model_dump(mode="json"), TIME_LIMIT)
                )
            except DiedError as error:
                reasons[precision] = str(error)
    fp32, other = (_cost(precision, found, reasons.get(precision, "")) for precision, found in answers.items())
    return fp32, other


def _cost(precision: Precision, answers: list[dict[str, Any]], reason: str) -> StepCost:
    times = [time for answer in answers for time in answer["step_ms"]]
    if not times:
        return StepCost(precision=precision, reason=reason or "no step was taken")
    return StepCost(
        precision=precision,
        step_ms=round(statistics.median(times), 3),
        steps=len(times),
        peak_bytes=max(answer["peak_bytes"] for answer in answers),
        reason=reason,
    )
