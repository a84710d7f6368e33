"""The ledger of a run, settled: what is new and what the cache gave, the bill of each rung, and what was saved."""

from collections.abc import Iterable

from components.core.contracts.job import Job, Rung
from components.core.contracts.leaderboard import Leaderboard
from components.core.contracts.ledger import Bill, Charge, Ledger, NotClimbed
from components.leaderboard.estimate import at_least

BUDGET = "budget"
"""Key of `Candidate.details` of the row that stands for a rung that the budget left out."""


def settled(ledger: Ledger, since: float | None = None) -> Ledger:
    """The ledger with its bills; settling a settled one changes nothing.

    Args:
        ledger: charges as the steps wrote them.
        since: Unix time in seconds at which the run began; None: as the ledger says, or unknown, and then only what two
            rungs share is known to be from the cache.
    """
    since = ledger.since if since is None else since
    charges, seen = [], set()
    for charge in ledger.charges:
        cached = charge.id in seen or (since is not None and charge.started < since)
        seen.add(charge.id)
        charges.append(charge.model_copy(update={"cached": cached}))
    rungs = list(dict.fromkeys(charge.rung for charge in charges))
    bills = [_bill(rung, [charge for charge in charges if charge.rung == rung]) for rung in rungs]
    total = _bill("", charges).model_copy(update={"steps": [], "cached": []})
    return ledger.model_copy(update={"since": since, "charges": charges, "rungs": bills, "total": total})


def accounted(board: Leaderboard, job: Job, since: float | None = None) -> Leaderboard:
    """The final board with its ledger settled and the rungs that were not climbed; without an account, as it is."""
    if board.ledger is None:
        return board
    ledger = settled(board.ledger, since)
    ledger = ledger.model_copy(update={"not_climbed": list(_not_climbed(board, job, ledger))})
    return board.model_copy(update={"ledger": ledger})


def _bill(rung: str, charges: list[Charge]) -> Bill:
    paid = [charge for charge in charges if not charge.cached]
    return Bill(
        rung=rung,
        wall_seconds=round(sum(charge.wall_seconds for charge in paid), 3),
        core_seconds=round(sum(charge.core_seconds for charge in paid), 3),
        gpu_seconds=round(sum(charge.gpu_seconds for charge in paid), 3),
        steps=[charge.step for charge in paid],
        cached=[charge.step for charge in charges if charge.cached],
    )


def _not_climbed(board: Leaderboard, job: Job, ledger: Ledger) -> Iterable[NotClimbed]:
    climbed = {charge.rung for charge in ledger.charges}
    left_out = {row.rung: str(row.details[BUDGET]) for row in board.candidates if BUDGET in row.details}
    for rung in job.ladder.rungs:
        if rung in climbed:
            continue
        why = left_out.get(rung) or ("the goal was met before" if board.goal_met else "it was not asked for")
        yield _saved(rung, why, ledger, job)


def _saved(rung: Rung, why: str, ledger: Ledger, job: Job) -> NotClimbed:
    if rung.trains:
        return NotClimbed(rung=rung, why=why, basis="nothing was trained in this rung, so that nobody knows")
    estimate = at_least(rung, ledger, job)
    if not estimate.measured:
        return NotClimbed(rung=rung, why=why, basis="no rung was climbed that it could be told from")
    return NotClimbed(
        rung=rung,
        why=why,
        wall_seconds=round(estimate.wall_seconds, 3),
        core_seconds=round(estimate.core_seconds, 3),
        gpu_seconds=round(estimate.gpu_seconds, 3),
        basis=estimate.basis,
    )
