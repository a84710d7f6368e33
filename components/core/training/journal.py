"""What happened while training: losses by epoch, steps that were skipped, the loss scale's way, step times."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

WARM = 2
"""First steps of a process, which also allocate memory and choose kernels; they do not count as step times."""
_KEPT = 2000
"""How many step times are kept."""


@dataclass
class Journal:
    """Plain numbers and text only, so that a checkpoint can hold it."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    """An entry an epoch: number, mean of each loss, learning rate at its end, seconds, skipped steps."""
    skipped: list[int] = field(default_factory=list)
    """Steps whose gradients overflowed: their update was left out."""
    scales: list[tuple[int, float]] = field(default_factory=list)
    """Step and loss scale, whenever the scale changed; empty without a scaler."""
    streak: int = 0
    """Skipped steps in a row."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of each loss over the steps of the present epoch."""
    count: int = 0
    seconds: float = 0.0
    recent: float = 0.0
    """Moving average of the total loss, for the progress line."""

    def __post_init__(self) -> None:
        self.step_seconds: list[float] = []
        """Of this process alone, not kept in checkpoints."""

    def add(self, step: int, losses: dict[str, float], *, finite: bool, scale: float | None, seconds: float) -> None:
        """Takes in one step.

        Args:
            step: number of the step, from 1.
            losses: by name.
            finite: whether the gradients were numbers, so that the step counted.
            scale: of the loss, after the step.
            seconds: that it took.
        """
        if scale is not None and (not self.scales or self.scales[-1][1] != scale):
            self.scales.append((step, scale))
        if len(self.step_seconds) < _KEPT:
            self.step_seconds.append(seconds)
        self.seconds += seconds
        if not finite:
            self.skipped.append(step)
            self.streak += 1
            return
        self.streak = 0
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        total = sum(losses.values())
        self.recent = total if self.recent == 0 else 0.9 * self.recent + 0.1 * total

    def close_epoch(self, number: int, learning_rate: float) -> None:
        """Turns the sums into the entry of an epoch, from 1."""
        before = sum(entry["skipped"] for entry in self.epochs)
        entry = {
            "epoch": number,
            "losses": {name: total / self.count for name, total in self.sums.items()},
            "learning_rate": learning_rate,
            "seconds": round(self.seconds, 3),
            "skipped": len(self.skipped) - before,
        }
        self.epochs.append(entry)
        self.sums, self.count, self.seconds = {}, 0, 0.0

    def step_ms(self) -> float | None:
        """Median time of this process' steps in milliseconds; None if there were none beside the first."""
        counted = self.step_seconds[WARM:]
        return round(1e3 * statistics.median(counted), 3) if counted else None

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)
