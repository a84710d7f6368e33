"""The README of a trained bundle: what it is and how it was made, for a person who finds the folder."""

from components.core.contracts.job import Precision
from components.core.contracts.training import TrainingCard
from components.core.formats import fraction, milliseconds, number, size, times


def readme(card: TrainingCard) -> str:
    """Markdown of a page."""
    return "\n".join(
        [
            f"# Trained bundle of the rung `{card.rung}`",
            "",
            "`model/weights.safetensors` fits the factory of the job; `data/` is that of the run. All numbers are in",
            "`training_card.json`.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in _facts(card)),
            "",
        ]
    )


def _facts(card: TrainingCard) -> list[tuple[str, str]]:
    rows = [
        ("precision", f"{card.precision} on {card.device}, {card.processes} process(es)"),
        ("steps", f"{card.steps} of {card.planned_steps}{f' ({card.reason})' if card.reason else ''}"),
        ("samples", f"{card.trained_on} trained on, {card.held_back} held back to judge by; none of `test`"),
        ("time", f"{number(card.wall_seconds)} s, {number(card.core_seconds)} core-seconds"),
    ]
    if card.fp32 and card.mixed and card.step_speedup and card.fp32.step_ms and card.mixed.step_ms:
        rows.append(
            (
                "a step",
                f"{milliseconds(card.mixed.step_ms)}, in FP32 {milliseconds(card.fp32.step_ms)}: "
                f"{times(card.step_speedup)}",
            )
        )
    if card.fp32 and card.mixed and card.fp32.peak_bytes and card.mixed.peak_bytes:
        rows.append(("peak memory", f"{size(card.mixed.peak_bytes)}, in FP32 {size(card.fp32.peak_bytes)}"))
    for name, after in (card.accuracy_after or {}).items():
        before = (card.accuracy_before or {}).get(name)
        rows.append(
            (f"{name} of what was held back", f"{fraction(before) if before is not None else '?'} -> {fraction(after)}")
        )
    if card.precision is Precision.FP16:
        path = ", ".join(f"{scale:g} from step {step}" for step, scale in card.loss_scales[-5:])
        rows.append(("loss scale", f"{path}; {len(card.skipped_steps)} steps skipped"))
    if card.resumed_at:
        rows.append(
            ("interrupted", f"{len(card.resumed_at)} times; went on at step {', '.join(map(str, card.resumed_at))}")
        )
    return rows
