"""The Ledger: what a run cost, step by step, and what it did not have to spend."""

from pydantic import Field

from components.core.contracts.base import Contract


class Cost(Contract):
    """What it took to make a step's output; an entry of `costs.json` in the output folder."""

    step: str
    id: str = Field(description="of this execution: where the cache gives an output to two rungs, both have the same")
    started: float = Field(description="Unix time in seconds")
    wall_seconds: float = Field(description="inside the step's logic: no start of a process or a pod, no queue")
    core_seconds: float = Field(description="processor time of the step and of all processes that it started")
    gpu_seconds: float = Field(default=0.0, description="wall time by GPUs in use")


class Charge(Cost):
    """A cost as a run meets it. The seconds stay those of the making, so that they can serve as an estimate."""

    rung: str = Field(default="", description="the rung that asked for it; empty: before the first")
    cached: bool = Field(
        default=False, description="made before this run or for another rung of it; costs nothing here"
    )


class Bill(Contract):
    """What a rung, or everything together, cost in this run; what the cache gave counts as nothing."""

    rung: str = Field(description="empty: before the first rung")
    wall_seconds: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    steps: list[str] = Field(default_factory=list, description="that were done")
    cached: list[str] = Field(default_factory=list, description="that the cache gave")


class NotClimbed(Contract):
    """A rung of the job that was not climbed, and what that saved; null: nobody knows."""

    rung: str
    why: str
    wall_seconds: float | None = Field(default=None, description="estimate, a lower bound; null: unknown")
    core_seconds: float | None = None
    gpu_seconds: float | None = None
    basis: str = Field(default="", description="what the estimate is from, or why there is none")


class Ledger(Contract):
    """What a run cost up to its leaderboard; `report` and `publish` come after it (`run.json` has them too)."""

    since: float | None = Field(
        default=None, description="Unix time in seconds at which the run began; what was made before is `cached`"
    )
    charges: list[Charge] = Field(default_factory=list)
    rungs: list[Bill] = Field(default_factory=list)
    total: Bill | None = None
    not_climbed: list[NotClimbed] = Field(default_factory=list)
