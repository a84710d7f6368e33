"""What the processes of a training rung are told: JSON between the rung and those that it starts."""

from pathlib import Path

from components.core.contracts.base import Contract
from components.core.contracts.job import Job, Precision


class Request(Contract):
    """One training, or a few steps of it for a measurement."""

    job: Job
    bundle: Path
    device: str
    precision: Precision
    out: Path | None = None
    """Folder for the weights and `trained.json`; of a training."""
    checkpoint_uri: str = ""
    identity: str = ""
    steps: int | None = None
    """How many steps of the schedule to take, counted from its first; None: all of them."""
