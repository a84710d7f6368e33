"""How a training went, on its way from the process that trained to the card."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.core.contracts.training import TrainingCard
from components.core.contracts.variant import Status
from components.core.files import staging
from components.core.machine import describe
from components.core.training.bundle import write_card
from components.core.training.journal import Journal
from components.core.training.loop import Trained

_FILE = "trained.json"


def write_outcome(done: Trained, folder: Path) -> None:
    """Writes `trained.json`."""
    (folder / _FILE).write_text(json.dumps(asdict(done) | {"step_ms": done.journal.step_ms()}))


def read_outcome(folder: Path) -> dict[str, Any]:
    """What `write_outcome` wrote."""
    found: dict[str, Any] = json.loads((folder / _FILE).read_text())
    return found


def filled(card: TrainingCard, done: dict[str, Any]) -> TrainingCard:
    """The card with what `read_outcome` says of steps, time, losses and interruptions."""
    journal = Journal(**done["journal"])
    return card.model_copy(
        update={
            "processes": done["processes"],
            "steps": done["steps"],
            "planned_steps": done["planned_steps"],
            "reason": done["stopped"],
            "resumed_at": done["resumed_at"],
            "wall_seconds": done["wall_seconds"],
            "core_seconds": done["core_seconds"],
            "step_ms": done["step_ms"],
            "epochs": journal.epochs,
            "skipped_steps": journal.skipped,
            "loss_scales": [(int(step), float(scale)) for step, scale in journal.scales],
        }
    )


def without_bundle(out: Path, card: TrainingCard, status: Status, reason: str) -> TrainingCard:
    """Fills `out` with the card alone, which says why nothing was trained."""
    card = card.model_copy(update={"status": status, "reason": " ".join(reason.split())})
    with staging(out, replace=True) as folder:
        write_card(folder, card)
    return card


def environment() -> dict[str, str]:
    """Hardware and versions, for a card."""
    from importlib.metadata import version

    import torch

    return describe() | {"lightning-fabric": version("lightning-fabric"), "threads": str(torch.get_num_threads())}
