"""Rung 5: times untrained models of other families and sizes at several resolutions, trains the few that can win."""

from pathlib import Path

from components.core.contracts.job import Job
from components.core.contracts.training import TrainingCard
from components.family.entrants import entrants
from components.searching.run import run_search

RUNG = "family"


def run_family(
    job: Job, bundle: Path, out: Path, bundle_uri: str = "", code_version: str = ""
) -> tuple[TrainingCard, Job]:
    """Searches for another model and fills `out` with a bundle of the winner; see `run_search`.

    Args:
        job: the job; `job.family` says whom to look at, `job.training` how to train, `job.goal` what to drop by.
        bundle: what `fetch` made. Its test split is handed on and never read.
        out: folder that appears whole; only a card is in it when nothing could be trained.
        bundle_uri: where the bundle is from; in an S3 store the checkpoints are kept beside it.
        code_version: of hasten.

    Returns:
        The card, which says `skipped` or `failed` and why when there is no bundle, and the job for `compress`.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
    """
    return run_search(RUNG, job, bundle, out, job.family, entrants, bundle_uri, code_version)
