"""What a training rung reports: `training_card.json` in the bundle that it makes."""

from pathlib import Path
from typing import Any

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import ModelSource, Precision, Training
from components.core.contracts.search import SearchCard
from components.core.contracts.variant import Status

TRAINING_CARD = "training_card.json"


class StepCost(Contract):
    """What a training step costs in one precision, measured in a process of its own."""

    precision: Precision
    step_ms: float | None = Field(default=None, description="median of the steps after the first ones")
    steps: int = 0
    peak_bytes: int | None = Field(
        default=None, description="GPU memory allocated at most; on a CPU, resident memory of the process"
    )
    reason: str = Field(default="", description="why there are no numbers")


class Lessons(Contract):
    """What a student learnt from."""

    teachers: list[str] = Field(description="factory or file of each")
    unlabelled: int = Field(description="samples without labels that were learnt from")
    answers: int = Field(description="samples times teachers that were asked about")
    answers_reused: int = Field(description="of these, known from an earlier run")
    answers_bytes: int = Field(description="size of what is kept of them")
    teachers_accuracy: dict[str, float] | None = Field(
        default=None, description="of the teachers together, on the samples held back"
    )
    accuracy_alone: dict[str, float] | None = Field(
        default=None, description="of the same student after as many steps on labels alone, if it was asked for"
    )


class TrainingCard(Contract):
    """How a rung trained, and what came of it."""

    rung: str
    techniques: list[str] = Field(
        default_factory=list, description="what was done to the user's model, in order; default: the rung alone"
    )
    status: Status
    reason: str = Field(default="", description="why it failed or was skipped, or what is worth knowing")
    settings: Training
    seed: int
    model: ModelSource | None = Field(
        default=None, description="factory of what was trained; without it the model cannot be trained again"
    )
    precision: Precision | None = Field(default=None, description="what `settings.precision` came to")
    device: str = ""
    processes: int = 1
    trained_on: int = Field(default=0, description="samples of `train` that it was trained on")
    held_back: int = Field(default=0, description="samples of `train` that the accuracies are of")
    steps: int = 0
    planned_steps: int = 0
    resumed_at: list[int] = Field(default_factory=list, description="steps at which it went on after an interruption")
    estimated_seconds: float | None = Field(
        default=None, description="planned steps times the step time measured before; what the ETA started from"
    )
    wall_seconds: float = Field(default=0.0, description="of the training loop, over all interruptions")
    core_seconds: float = Field(default=0.0, description="processor time of all its processes")
    step_ms: float | None = Field(default=None, description="median step of the training itself")
    fp32: StepCost | None = Field(default=None, description="the reference: the same steps in FP32")
    mixed: StepCost | None = Field(default=None, description="the same steps in mixed precision")
    step_speedup: float | None = Field(default=None, description="FP32 step time over the mixed one")
    memory_ratio: float | None = Field(default=None, description="mixed peak memory over FP32's")
    accuracy_before: dict[str, float] | None = Field(default=None, description="on the samples held back")
    accuracy_after: dict[str, float] | None = None
    lessons: Lessons | None = Field(default=None, description="of a distilled student")
    epochs: list[dict[str, Any]] = Field(
        default_factory=list, description="losses, learning rate, seconds and skipped steps of each epoch"
    )
    skipped_steps: list[int] = Field(default_factory=list, description="steps whose gradients overflowed")
    loss_scales: list[tuple[int, float]] = Field(
        default_factory=list, description="step and loss scale, whenever it changed; empty without a scaler"
    )
    search: SearchCard | None = Field(default=None, description="of a rung that chose what to train among candidates")
    source_sha256: str = Field(default="", description="of the weights that training started from")
    weights_sha256: str = Field(default="", description="of the weights that it made")
    environment: dict[str, str] = Field(default_factory=dict, description="hardware and versions")

    @property
    def made_by(self) -> list[str]:
        """What was done to the user's model, in order."""
        return self.techniques or [self.rung]

    @property
    def gpus(self) -> int:
        """How many the training used: one a process."""
        return self.processes if self.device.startswith("cuda") else 0

    @staticmethod
    def read(bundle: Path) -> "TrainingCard":
        """Reads the card of a bundle that a training rung made."""
        return TrainingCard.model_validate_json((bundle / TRAINING_CARD).read_text())

    @staticmethod
    def find(bundle: Path) -> "TrainingCard | None":
        """The card of a bundle; None if it is `fetch`'s, with the user's own model."""
        return TrainingCard.read(bundle) if (bundle / TRAINING_CARD).is_file() else None
