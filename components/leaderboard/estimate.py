"""What a climb takes at least, from what this run has seen so far; nothing is made up where nothing was seen."""

from dataclasses import dataclass

from components.core.contracts.job import Job, Rung
from components.core.contracts.ledger import Ledger

_EVERY_CLIMB = ("engine", "benchmark")
"""Steps of every technique; export and surgery are shared, and what makes the models differs."""
_TECHNIQUES = tuple(rung for rung in Rung if not rung.trains)


@dataclass(frozen=True)
class Estimate:
    """A lower bound."""

    wall_seconds: float
    core_seconds: float
    gpu_seconds: float
    basis: str
    """What it is from."""
    measured: bool
    """Whether it was seen in this run; else it is what the job's own settings come to."""

    def times(self, factor: int) -> "Estimate":
        """So often the same."""
        wall, core, gpu = (factor * seconds for seconds in (self.wall_seconds, self.core_seconds, self.gpu_seconds))
        return Estimate(wall, core, gpu, self.basis, self.measured)


def at_least(rung: Rung, ledger: Ledger, job: Job) -> Estimate:
    """What climbing `rung` takes at least, without the training of one that trains.

    Args:
        rung: the rung.
        ledger: settled: it knows what the cache gave.
        job: the job.
    """
    once = _technique(ledger, job)
    return once.times(len(_TECHNIQUES)) if rung.trains else once


def _technique(ledger: Ledger, job: Job) -> Estimate:
    for rung in _TECHNIQUES:
        seen = [
            charge
            for charge in ledger.charges
            if charge.rung == rung and charge.step in _EVERY_CLIMB and not charge.cached
        ]
        if any(charge.step == "benchmark" for charge in seen):
            return Estimate(
                sum(charge.wall_seconds for charge in seen),
                sum(charge.core_seconds for charge in seen),
                sum(charge.gpu_seconds for charge in seen),
                f"{' and '.join(charge.step for charge in seen)} of {rung} took as long",
                measured=True,
            )
    rounds = 2 * job.budget.rounds * job.budget.round_time
    basis = f"{job.budget.rounds} rounds of one candidate and the baseline, {job.budget.round_time:g} s each"
    return Estimate(rounds, rounds, rounds * job.target.gpus, basis, measured=False)
