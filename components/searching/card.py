"""What a search's card says of each entrant, and what it saved."""

from collections.abc import Sequence
from typing import Any

from components.core.contracts.search import Entry, Probed, Round
from components.core.contracts.variant import Status
from components.searching.dominance import Decision
from components.searching.halving import Raced

_SECONDS = 3600.0


def entries_of(probed: Sequence[Probed], decisions: Sequence[Decision], raced: Raced) -> list[Entry]:
    """One entry an entrant, with what became of it."""
    winner = raced.finalists[0] if raced.finalists else ""
    found = []
    for one, decision in zip(probed, decisions, strict=True):
        rounds = raced.rounds.get(one.id, [])
        outcome, reason = "dropped", decision.reason
        if one.status is not Status.OK:
            outcome = "failed"
        elif decision.trains:
            outcome = "winner" if one.id == winner else "trained"
            reason = rounds[-1].reason if rounds else decision.reason
            if rounds and rounds[-1].steps == 0:
                outcome = "failed"
            elif outcome == "trained" and not reason and rounds:
                reason = f"trained to the end, behind {winner}"
            elif outcome == "winner":
                reason = reason or decision.reason
        found.append(Entry(id=one.id, outcome=outcome, reason=reason, probe=one, rounds=rounds))
    return found


def costs(raced: Raced, decisions: Sequence[Decision]) -> dict[str, Any]:
    """Processor time spent, and estimates of what was saved; the estimates are None where nothing was trained."""
    last = {name: rounds[-1] for name, rounds in raced.rounds.items() if rounds}
    trained = {name: one for name, one in last.items() if one.steps > 0}
    spent = sum(one.core_seconds for one in trained.values())
    if not trained:
        return {"trained_core_seconds": round(spent, 3)}
    whole = [_whole(one) for one in trained.values()]
    dropped = sum(1 for one in decisions if not one.trains)
    return {
        "trained_core_seconds": round(spent, 3),
        "saved_by_probe_core_hours": round(sum(whole) / len(whole) * dropped / _SECONDS, 4),
        "saved_by_halving_core_hours": round((sum(whole) - spent) / _SECONDS, 4),
    }


def _whole(one: Round) -> float:
    """Processor seconds of an entrant's whole training, by what a step of it cost."""
    return one.core_seconds / one.steps * one.planned_steps
