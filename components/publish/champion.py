"""Takes the version in production out of the store, so that it can be measured and trained again."""

from pathlib import Path

from components.core.contracts.champion import CHAMPION, FILES, RECORD, Champion, TrainingRecord
from components.core.contracts.job import Job
from components.core.contracts.variant import Variant
from components.core.errors import StepError, UserError
from components.core.files import confined, sha256_file, staging, write_bytes_atomic
from components.core.stepping import progress
from components.publish.pointer import read_production
from components.publish.published import Published, read_version
from components.publish.records import VERSIONS
from components.publish.store import Store, open_store


def current_version(job: Job) -> str:
    """The version that the job's place has in production.

    Raises:
        UserError: the job publishes nowhere, or nothing is published there yet.
    """
    store = _store(job)
    store.check()
    production = read_production(store)
    if production is None:
        raise UserError(
            f"{store.uri}: nothing is published there yet, so that there is no champion to train again; publish a "
            "first version with `hasten run`"
        )
    return production.version


def take_champion(job: Job, version: str, out: Path) -> Champion:
    """Copies a version's files into `out/version`, compared with their hashes, and writes `champion.json`.

    The weights to start from are the version's own where it has them and the job's factory still is theirs; else
    `champion.json` names none, and training starts from the job's.

    Args:
        job: where it is published, and the factory.
        version: of `current_version`.
        out: folder that appears whole.

    Raises:
        UserError: there is no such version.
        StepError: a file of it is missing or damaged.
    """
    store = _store(job)
    published = read_version(store, version)
    with staging(out, replace=True) as folder:
        files = published.manifest.files
        for number, file in enumerate(files):
            progress(f"taking {file.path}", number, len(files))
            target = confined(folder / FILES, file.path, published.uri)
            if not store.copy_to(f"{VERSIONS}/{version}/{file.path}", target) or sha256_file(target) != file.sha256:
                raise StepError(
                    f"{published.uri}/{file.path} is missing or not what was published; `hasten rollback` goes back to "
                    "a version that is whole"
                )
        card = _card(job, published, folder)
        write_bytes_atomic(folder / CHAMPION, card.model_dump_json(indent=2).encode())
    return card


def _card(job: Job, published: Published, folder: Path) -> Champion:
    manifest, board = published.manifest, published.board
    evidence = folder / FILES / manifest.report
    path = evidence / RECORD
    record = TrainingRecord.model_validate_json(path.read_text()) if path.is_file() else None
    same = record is not None and (record.model.factory, record.model.kwargs) == (job.model.factory, job.model.kwargs)
    beside = path.parent
    weights = confined(beside, str(record.model.weights), published.uri) if record is not None and same else None
    winner = board.row(board.winner) if board is not None and board.winner is not None else None
    return Champion(
        version=manifest.version,
        uri=published.uri,
        variant=Variant(
            id=f"champion-{manifest.version}",
            runtime=manifest.runtime,
            techniques=manifest.techniques,
            file=manifest.model,
            options=manifest.options,
        ),
        accuracy=winner.accuracy.value if winner is not None and winner.accuracy is not None else None,
        record=record,
        weights=weights.relative_to(folder).as_posix() if weights is not None and weights.is_file() else None,
    )


def _store(job: Job) -> Store:
    if job.publish is None:
        raise UserError("publish: the job names no place, so that there is no champion; give publish.to")
    return open_store(job.publish, job.name)
