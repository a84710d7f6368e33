"""The Leaderboard: every candidate measured side by side, the pick and why."""

from typing import Any

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import Goal, Metric, Runtime
from components.core.contracts.ledger import Ledger
from components.core.contracts.variant import Status

MADE_OF = "made_of"
"""Key of `Candidate.details`: URI of the bundle, with the weights and the data, that a candidate was made of."""


class Latency(Contract):
    """Percentiles of one call, which is one batch, in milliseconds."""

    p50: float
    p90: float
    p99: float


class Ratio(Contract):
    """A speed-up over the baseline with its bootstrap 95% confidence interval; 2.0 is twice as fast."""

    ratio: float
    ci_low: float
    ci_high: float


class Accuracy(Contract):
    """Accuracy on the test split (0..1) and how much of the baseline's was lost; a negative drop is a gain."""

    metric: Metric
    value: float
    drop: float


class Measurement(Contract):
    """What one benchmark found out about one candidate."""

    latency_ms: Latency = Field(description="end to end: decoded uint8 image in, boxes in image pixels out")
    model_latency_ms: Latency = Field(description="the model alone, input tensor to output tensors")
    speedup: Ratio = Field(description="end-to-end p50 of the baseline over this candidate's, round by round")
    throughput: float = Field(description="images a second, end to end, one process")
    accuracy: Accuracy
    other_accuracy: dict[Metric, float] = Field(
        default_factory=dict, description="the metrics that the goal is not about"
    )
    size_bytes: int = Field(ge=0, description="size of the model file")
    peak_rss_bytes: int = Field(ge=0, description="peak resident memory of the candidate's own process")
    stable: bool = Field(
        description="whether the rounds agreed; an unstable measurement was repeated and still differs"
    )
    threads: int
    rounds: int
    versions: dict[str, str] = Field(default_factory=dict)


class Candidate(Contract):
    """One row. A candidate that failed or was skipped has a reason and no numbers."""

    id: str
    rung: str = Field(description="`baseline` or the rung that made it")
    techniques: list[str]
    runtime: Runtime
    status: Status
    reason: str = ""
    reference: bool = Field(default=False, description="a yardstick, never the winner")
    latency_ms: Latency | None = None
    model_latency_ms: Latency | None = None
    speedup: Ratio | None = None
    throughput: float | None = Field(default=None, description="images a second")
    accuracy: Accuracy | None = None
    other_accuracy: dict[Metric, float] = Field(default_factory=dict)
    size_bytes: int | None = None
    peak_rss_bytes: int | None = None
    stable: bool | None = None
    threads: int | None = None
    rounds: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    uri: str | None = Field(default=None, description="folder of the step that made it")
    file: str | None = Field(default=None, description="model file in that folder")
    sha256: str | None = Field(default=None, description="of the model file")
    options: dict[str, Any] = Field(
        default_factory=dict, description="settings the runtime needs, e.g. precision hints"
    )
    details: dict[str, Any] = Field(default_factory=dict)
    meets_goal: bool = False


class Leaderboard(Contract):
    """The result of a run; `leaderboard.json`."""

    job: str
    goal: Goal
    baseline: str = Field(description="id of the row the speed-ups are over")
    goal_met: bool = False
    winner: str | None = None
    why: str = Field(default="", description="why this winner, or why none")
    pareto: list[str] = Field(
        default_factory=list, description="ids that no other row beats in both accuracy and latency"
    )
    candidates: list[Candidate]
    environment: dict[str, str] = Field(default_factory=dict, description="hardware and versions of the measurements")
    ledger: Ledger | None = Field(default=None, description="what the run cost; null: nobody kept account")

    def row(self, candidate_id: str) -> Candidate:
        """The row with that id.

        Raises:
            KeyError: there is none.
        """
        for candidate in self.candidates:
            if candidate.id == candidate_id:
                return candidate
        raise KeyError(candidate_id)
