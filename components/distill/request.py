"""What the processes that train a student are told: JSON between this one and those that it starts."""

from pathlib import Path

from components.core.contracts.base import Contract
from components.core.contracts.job import Job, Precision


class Request(Contract):
    """One training of the student."""

    job: Job
    bundle: Path
    answers_uri: str
    """Where the teachers' answers are; all of them are there already."""
    device: str
    precision: Precision
    out: Path
    """Folder for the weights and `trained.json`."""
    checkpoint_uri: str
    identity: str
    alone: bool = False
    """Without the teachers, on labels alone, as many steps."""
