"""The README of a searched bundle: what won and how, and what became of every other candidate."""

from components.core.contracts.search import SearchCard
from components.core.contracts.training import TrainingCard
from components.core.formats import fraction, markdown, number

_COLUMNS = {
    "id": "candidate",
    "outcome": "outcome",
    "form": "fastest form",
    "probe_p50_ms": "p50 ms, untrained",
    "probe_speedup": "over the baseline",
    "trained_steps": "steps",
    "held_back": "on what was held back",
    "reason": "why",
}


def readme(card: TrainingCard) -> str:
    """Markdown of a page."""
    search = card.search
    if search is None:
        raise ValueError("the card is of no search")
    rows = [entry.row() for entry in search.entries]
    return "\n".join(
        [
            f"# Searched bundle of the rung `{card.rung}`",
            "",
            f"`model/weights.safetensors` are those of `{search.winner}`; `data/` is that of the run. All numbers are",
            "in `training_card.json`.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in _facts(card, search)),
            "",
            f"| {' | '.join(_COLUMNS.values())} |",
            f"|{'---|' * len(_COLUMNS)}",
            *("| " + " | ".join(markdown(row[column]) for column in _COLUMNS) + " |" for row in rows),
            "",
        ]
    )


def _facts(card: TrainingCard, search: SearchCard) -> list[tuple[str, str]]:
    outcomes = [entry.outcome for entry in search.entries]
    trained = sum(outcome in ("trained", "winner") for outcome in outcomes)
    rows = [
        ("winner", f"{search.winner}: {search.why}"),
        (
            "candidates",
            f"{len(outcomes)}: {trained} trained, {outcomes.count('dropped')} dropped by the probe, "
            f"{outcomes.count('failed')} failed",
        ),
        ("dropped by", ", ".join(search.limits) or "no limit of the goal"),
        ("dominance", "; ".join(search.bases) or "nothing that is known of the candidates compares them"),
        (
            "training",
            f"{card.precision} on {card.device}, {card.processes} process(es), {card.steps} steps of the winner",
        ),
        ("samples", f"{card.trained_on} trained on, {card.held_back} held back to judge by; none of `test`"),
        (
            "processor time",
            f"probe {number(search.probe_core_seconds)} s, training {number(search.trained_core_seconds)} s",
        ),
    ]
    if search.saved_by_probe_core_hours is not None:
        rows.append(
            (
                "saved, estimated",
                f"{number(search.saved_by_probe_core_hours)} core-hours by training fewer, "
                f"{number(search.saved_by_halving_core_hours or 0.0)} by halving; at the measured cost of a step",
            )
        )
    for name, after in (card.accuracy_after or {}).items():
        before = (card.accuracy_before or {}).get(name)
        shown = fraction(before) if before is not None else "?"
        rows.append(
            (f"{name} of what was held back", f"{shown} (the user's model, which may know it) -> {fraction(after)}")
        )
    if card.reason:
        rows.append(("note", card.reason))
    return rows
