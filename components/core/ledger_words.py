"""A settled ledger as rows of text, for a terminal, Markdown and the report's page."""

from components.core.contracts.ledger import Bill, Ledger, NotClimbed
from components.core.formats import duration

HEADER = ("rung", "wall clock", "core time", "GPU time", "done", "from the cache")
NUMERIC = HEADER[1:4]
BEFORE = "before the first rung"
"""Where fetch, the first export and the baseline's benchmark are."""
TOTAL = "total"


def ledger_rows(ledger: Ledger) -> list[tuple[str, ...]]:
    """A row a rung and one of all together; steps from the cache cost nothing and are named."""
    rows = [_row(bill.rung or BEFORE, bill) for bill in ledger.rungs]
    return [*rows, _row(TOTAL, ledger.total)] if ledger.total is not None else rows


def saved_lines(ledger: Ledger) -> list[str]:
    """A sentence for each rung that was not climbed, with what that saved or that nobody knows."""
    return [_saved(each) for each in ledger.not_climbed]


def _row(name: str, bill: Bill) -> tuple[str, ...]:
    gpu = duration(bill.gpu_seconds) if bill.gpu_seconds else ""
    done, cached = ", ".join(_counted(bill.steps)), ", ".join(_counted(bill.cached))
    return name, duration(bill.wall_seconds), duration(bill.core_seconds), gpu, done, cached


def _counted(steps: list[str]) -> list[str]:
    """``benchmark x 2`` for one that was done twice."""
    counts = {step: steps.count(step) for step in steps}
    return [step if count == 1 else f"{step} x {count}" for step, count in counts.items()]


def _saved(each: NotClimbed) -> str:
    if each.wall_seconds is None or each.core_seconds is None:
        return f"{each.rung} was not climbed ({each.why}); what that saved is unknown: {each.basis}"
    gpu = f" and {duration(each.gpu_seconds)} of GPU time" if each.gpu_seconds else ""
    return (
        f"{each.rung} was not climbed ({each.why}); saved at least {duration(each.wall_seconds)}, "
        f"{duration(each.core_seconds)} of core time{gpu}: {each.basis}"
    )
