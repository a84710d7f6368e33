"""The README of a distilled bundle: what it is and how it was made, for a person who finds the folder."""

from components.core.contracts.training import TrainingCard
from components.core.formats import fraction, number, size


def readme(card: TrainingCard) -> str:
    """Markdown of a page."""
    return "\n".join(
        [
            f"# Trained bundle of the rung `{card.rung}`",
            "",
            "`model/weights.safetensors` fits the factory of the job's `distill.student`; `data/` is that of the run.",
            "All numbers are in `training_card.json`.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in _facts(card)),
            "",
        ]
    )


def _facts(card: TrainingCard) -> list[tuple[str, str]]:
    lessons = card.lessons
    rows = [
        ("precision", f"{card.precision} on {card.device}, {card.processes} process(es)"),
        ("steps", f"{card.steps} of {card.planned_steps}{f' ({card.reason})' if card.reason else ''}"),
    ]
    if lessons:
        rows += [
            ("teachers", ", ".join(f"`{name}`" for name in lessons.teachers)),
            (
                "samples",
                f"{card.trained_on} with labels, {lessons.unlabelled} without, {card.held_back} held back to judge by; "
                "none of `test`",
            ),
            (
                "answers",
                f"{lessons.answers} ({size(lessons.answers_bytes)}), {lessons.answers_reused} of them known before",
            ),
        ]
        for what, accuracies in (
            ("of the teachers", lessons.teachers_accuracy),
            ("of the student on labels alone", lessons.accuracy_alone),
            ("of the distilled student", card.accuracy_after),
        ):
            rows += [(f"{name} {what}", fraction(value)) for name, value in (accuracies or {}).items()]
    rows.append(("time", f"{number(card.wall_seconds)} s, {number(card.core_seconds)} core-seconds"))
    if card.resumed_at:
        rows.append(
            ("interrupted", f"{len(card.resumed_at)} times; went on at step {', '.join(map(str, card.resumed_at))}")
        )
    return rows
