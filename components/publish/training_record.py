"""What goes along with a version so that it can be trained again: its weights, and statistics of its data."""

import json
from pathlib import Path

from components.core.contracts.champion import RECORD, TrainingRecord
from components.core.contracts.dataset import SplitStatistics
from components.core.contracts.job import Job, ModelSource, Task
from components.core.contracts.leaderboard import MADE_OF, Candidate
from components.core.contracts.training import TRAINING_CARD, TrainingCard
from components.core.errors import UserError
from components.core.files import sha256_file
from components.core.storage import is_remote, local_path, materialize
from components.core.tasks.detection_statistics import statistics_of
from components.publish.store import Content

_FETCH_CARD = "fetch_card.json"


def training_files(job: Job, winner: Candidate) -> dict[str, Content]:
    """Path in the evidence -> content; empty for a job without `retrain` and for a model that cannot be trained.

    Args:
        job: what was asked for.
        winner: its row names the bundle that it was made of.
    """
    bundle = winner.details.get(MADE_OF)
    if job.retrain is None or job.task is not Task.DETECTION or not bundle:
        return {}
    source = _source(job, bundle)
    if source is None or source.weights is None:
        return {}
    fetched = json.loads(_part(bundle, _FETCH_CARD).read_text())
    weights = _part(bundle, str(fetched["model"][0]["file"]))
    name = f"weights{weights.suffix}"
    record = TrainingRecord(
        model=source.model_copy(update={"weights": name}),
        weights_sha256=sha256_file(weights),
        train=_statistics(bundle, fetched, "train"),
        test=_statistics(bundle, fetched, "test"),
    )
    folder = RECORD.rpartition("/")[0]
    return {f"{folder}/{name}": weights, RECORD: (record.model_dump_json(indent=2) + "\n").encode()}


def _source(job: Job, bundle: str) -> ModelSource | None:
    """The factory of the bundle's model; None where a rung trained another one and does not say which."""
    try:
        card = TrainingCard.model_validate_json(_part(bundle, TRAINING_CARD).read_text())
    except UserError:  # `fetch` made it: the user's own model
        return job.model if job.model.factory else None
    return card.model


def _statistics(bundle: str, fetched: dict[str, dict[str, str]], split: str) -> SplitStatistics:
    document = json.loads(_part(bundle, f"data/{split}/annotations.json").read_text())
    return statistics_of(document, fetched[split]["annotations_sha256"], fetched[split]["images_sha256"])


def _part(bundle: str, path: str) -> Path:
    """One file of a bundle; its images stay where they are."""
    return materialize(f"{bundle}/{path}" if is_remote(bundle) else str(local_path(bundle) / path))
