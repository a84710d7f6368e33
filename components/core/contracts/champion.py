"""The model in production as retraining sees it: what it is, what it was trained from, and how a challenge ended."""

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.dataset import SplitStatistics
from components.core.contracts.job import Metric, ModelSource
from components.core.contracts.leaderboard import Latency, Ratio
from components.core.contracts.variant import Variant

RECORD = "training/record.json"
"""In a version's evidence: what it was trained from."""
CHAMPION = "champion.json"
"""In the folder that the step `champion` makes."""
FILES = "version"
"""Folder beside it with the version's files."""


class TrainingRecord(Contract):
    """What it takes to train a published model again, and to tell whether new data are like those it was trained on."""

    model: ModelSource = Field(description="its factory; `weights` is the file beside this record")
    weights_sha256: str
    train: SplitStatistics
    test: SplitStatistics


class Champion(Contract):
    """`champion.json`: a version that was taken out of the store."""

    version: str
    uri: str = Field(description="of the version's folder in the store")
    variant: Variant = Field(description="how it is loaded, relative to the folder `version`")
    accuracy: float | None = Field(default=None, description="as measured when it was published, 0..1")
    record: TrainingRecord | None = Field(default=None, description="None where the version was published without one")
    weights: str | None = Field(default=None, description="file with the weights to start from, beside `champion.json`")

    @staticmethod
    def read(folder: Path) -> "Champion":
        """Reads the card of the folder that the step `champion` made."""
        return Champion.model_validate_json((folder / CHAMPION).read_text())


class Difference(Contract):
    """Challenger less champion, with its bootstrap 95% confidence interval; positive is a gain."""

    value: float
    ci_low: float
    ci_high: float


class Side(Contract):
    """One of the two models of a challenge."""

    id: str
    accuracy: float
    latency_ms: Latency
    stable: bool


class Challenge(Contract):
    """Champion and challenger, measured in one run on the same test images; empty where there was no challenger."""

    reason: str = Field(default="", description="why nothing was measured")
    metric: Metric = Metric.MAP50
    images: int = 0
    champion: Side | None = None
    challenger: Side | None = None
    accuracy: Difference | None = Field(default=None, description="paired: over samples of the same test images")
    speedup: Ratio | None = Field(default=None, description="champion's p50 over the challenger's, round by round")


class Verdict(StrEnum):
    """What becomes of the champion."""

    PROMOTE = "promote"
    KEEP = "keep"


class Outcome(Contract):
    """How a retraining ended; `retrain.json`. Keeping the champion is a result and not a failure."""

    verdict: Verdict
    reason: str
    champion: str = Field(description="version that was in production when the run began")
    stage: str = Field(description="`data` where the new data decided, `challenge` where the measurement did")
    challenge: Challenge | None = None
    report_uri: str = Field(default="", description="folder of the ladder's report; empty if nothing was trained")
    published_uri: str = Field(default="", description="of the version that was published; empty if none was")
