"""What a run on a cluster left in the store, as far as this machine can read it."""

from components.core.contracts.job import Job
from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import StepError, UserError


def published_board(job: Job) -> tuple[Leaderboard | None, str]:
    """The leaderboard of the version in production, or why it cannot be shown."""
    from components.publish.pointer import read_production
    from components.publish.records import MANIFEST, VERSIONS, VersionManifest
    from components.publish.store import open_store

    if job.publish is None:
        return None, "the job publishes nowhere; the report is among the run's artifacts"
    try:
        store = open_store(job.publish, job.name)
        production = read_production(store)
        if production is None:
            return None, f"nothing is published at {store.uri}"
        folder = f"{VERSIONS}/{production.version}"
        manifest = store.read(f"{folder}/{MANIFEST}")
        if manifest is None:
            return None, f"{store.uri}/{folder} has no manifest"
        report = VersionManifest.model_validate_json(manifest.content).report
        board = store.read(f"{folder}/{report}/leaderboard.json")
    except (UserError, StepError) as error:
        return None, f"the published leaderboard cannot be read here: {error}"
    if board is None:
        return None, f"{store.uri}/{folder} has no leaderboard"
    return Leaderboard.model_validate_json(board.content), ""
