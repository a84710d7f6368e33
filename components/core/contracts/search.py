"""What a rung that searches reports of its entrants: probed, dropped and why, trained, and what that saved."""

from typing import Any

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.leaderboard import Latency, Ratio
from components.core.contracts.variant import Status


class Probed(Contract):
    """What the latency probe found out about one untrained entrant: its fastest form on the target."""

    id: str
    status: Status
    reason: str = Field(default="", description="why there are no numbers")
    form: str = Field(default="", description="the fastest variant, for instance `int8-openvino`")
    latency_ms: Latency | None = Field(default=None, description="end to end, of that form")
    speedup: Ratio | None = Field(default=None, description="over the baseline, round by round")
    throughput: float | None = Field(default=None, description="samples a second")
    size_bytes: int | None = None
    forms: dict[str, float] = Field(default_factory=dict, description="p50 in ms of every form that was timed")
    parameters: int | None = None
    family: str = Field(default="", description="architecture whose sizes compare by their parameters")
    published: float | None = Field(default=None, description="published accuracy 0..1, where it is known offline")
    published_as: str = Field(default="", description="what that accuracy is, for instance `ImageNet-1K top-1`")
    seconds: float = Field(default=0.0, description="that probing it took, its part of the rounds included")


class Round(Contract):
    """One round of successive halving, of one entrant."""

    number: int = Field(description="from 1")
    steps: int = Field(description="taken since the beginning")
    planned_steps: int
    accuracy: dict[str, float] | None = Field(default=None, description="on the samples held back")
    wall_seconds: float = Field(default=0.0, description="of training since the beginning")
    core_seconds: float = 0.0
    reason: str = Field(default="", description="why it failed or stopped early, or dropped out after this round")


class Entry(Contract):
    """One entrant, from the probe to its end."""

    id: str
    outcome: str = Field(description="`failed`, `dropped` by the probe, `trained`, or `winner`")
    reason: str = ""
    probe: Probed
    rounds: list[Round] = Field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """A line for a table: plain numbers and words."""
        probe, last = self.probe, self.rounds[-1] if self.rounds else None
        found: dict[str, Any] = {"id": self.id, "outcome": self.outcome, "form": probe.form}
        found["probe_p50_ms"] = round(probe.latency_ms.p50, 3) if probe.latency_ms else ""
        found["probe_speedup"] = round(probe.speedup.ratio, 2) if probe.speedup else ""
        found["trained_steps"] = f"{last.steps} of {last.planned_steps}" if last else ""
        found["held_back"] = ", ".join(f"{k} {v:.3f}" for k, v in (last.accuracy or {}).items()) if last else ""
        found["reason"] = self.reason
        return found


class SearchCard(Contract):
    """The whole search; part of the training card of the winner's bundle."""

    settings: dict[str, Any] = Field(description="the rung's section of the job")
    limits: list[str] = Field(default_factory=list, description="what of the goal the probe dropped by")
    bases: list[str] = Field(default_factory=list, description="what dominance was judged by")
    winner: str = ""
    why: str = Field(default="", description="why this winner")
    entries: list[Entry]
    probe_core_seconds: float = Field(default=0.0, description="processor time that the probe took")
    trained_core_seconds: float = Field(default=0.0, description="processor time of all trainings, as measured")
    saved_by_probe_core_hours: float | None = Field(
        default=None,
        description="estimate: mean cost of a full training of those that were trained, times those dropped untrained",
    )
    saved_by_halving_core_hours: float | None = Field(
        default=None, description="estimate: steps left out by halving, at each entrant's own measured cost of a step"
    )

    @property
    def wall_seconds(self) -> float:
        """Of probing and of all trainings, over all interruptions."""
        trained = sum(entry.rounds[-1].wall_seconds for entry in self.entries if entry.rounds)
        return sum(entry.probe.seconds for entry in self.entries) + trained

    @property
    def core_seconds(self) -> float:
        """Processor time of probing and of all trainings, over all interruptions."""
        return self.probe_core_seconds + self.trained_core_seconds

    def others(self) -> list[Entry]:
        """Everyone but the winner."""
        return [entry for entry in self.entries if entry.id != self.winner]

    def summary(self) -> dict[str, Any]:
        """For the rows of the board: numbers, and a table of the entrants."""
        return self.model_dump(mode="json", exclude={"entries", "settings"}) | {
            "entrants": [entry.row() for entry in self.entries]
        }
