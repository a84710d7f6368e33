"""Publishes the winner: a version folder named after its content, then the pointer to it."""

import hashlib
from pathlib import Path

from components.core.contracts.job import Job
from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import StepError, UserError
from components.core.stepping import progress
from components.publish.pointer import point_to, read_production
from components.publish.provenance import Provenance
from components.publish.published import read_version
from components.publish.records import MANIFEST, VERSIONS, Release, VersionManifest
from components.publish.registry import Registry, check_registry, register
from components.publish.store import Store, open_store
from components.publish.version import Version, make_version


def run_publish(
    job: Job, board: Leaderboard, report: Path, provenance: Provenance | None = None, *, outcome: str = ""
) -> str:
    """Stores the winner as a version and makes it the one in production.

    Nothing is visible before it is whole: the version's manifest is written after its files, the pointer after the
    manifest. A second call with the same winner changes nothing.

    Args:
        job: says where to publish; its name is the name of the model there.
        board: the final board.
        report: folder of the report.
        provenance: where the winner comes from. With `replaced` in it, no other version is replaced, and none that was
            withdrawn goes back into production.
        outcome: how a retraining was judged, as JSON; it lies beside the report.

    Returns:
        URI of the version's folder; empty, with the reason said through `progress`, if the job publishes nowhere or
        nothing won.

    Raises:
        UserError: the place, or the registry that the job names, cannot be reached or written.
        StepError: the model file is not the one that was measured, the place cannot keep a pointer safe, or another
            version went into production while this one was made.
    """
    if job.publish is None:
        progress("nothing is published: the job names no place (publish.to)")
        return ""
    if board.winner is None:
        progress(f"nothing is published: no candidate won ({board.why})")
        return ""
    store = open_store(job.publish, job.name)
    store.check()
    registry = Registry.of_job(job.publish.registry) if job.publish.registry else None
    version = make_version(job, board, board.row(board.winner), report, provenance, outcome)
    replaces = provenance.replaced if provenance is not None else ""
    if replaces and _withdrawn(store, version.manifest.version):
        progress(f"nothing is published: {version.manifest.version} was withdrawn by a rollback")
        return ""
    progress(f"publishing version {version.manifest.version}")
    release = _store(store, version)
    production = point_to(store, release, replaces=replaces or None)
    progress(f"in production: {production.version}, before it {production.previous or 'nothing'}")
    if registry is not None:
        _register(store, release.version, registry)
    return f"{store.uri}/{VERSIONS}/{release.version}"


def check_destination(job: Job) -> None:
    """Refuses a place that cannot be published to, before any work; does nothing for a job that publishes nowhere.

    Raises:
        UserError: it cannot be reached, or the folder cannot be written. Write access to S3 is not tried.
    """
    if job.publish is not None:
        open_store(job.publish, job.name).check()
        if job.publish.registry:
            check_registry(Registry.of_job(job.publish.registry))


def _withdrawn(store: Store, version: str) -> bool:
    production = read_production(store)
    return production is not None and version in production.withdrawn


def _register(store: Store, version: str, registry: Registry) -> None:
    try:
        registered = register(read_version(store, version), registry)
    except (UserError, StepError) as error:
        raise type(error)(f"{version} is published, but not registered: {error}") from error
    state = "registered" if registered.new else "registered before"
    progress(f"{state} at {registry.shown}: model {registered.model_id}, version {registered.version_id}")


def _store(store: Store, version: Version) -> Release:
    """Adds the version if it is not there; the release is about the manifest that is there in the end."""
    name = version.manifest.version
    store.add_version(name, version.files, version.manifest_json)
    stored = store.read(f"{VERSIONS}/{name}/{MANIFEST}")
    if stored is None:
        raise StepError(f"{store.uri}/{VERSIONS}/{name} was removed while it was published; run again")
    there = VersionManifest.model_validate_json(stored.content)
    if there.content_sha256 != version.manifest.content_sha256:
        raise StepError(
            f"{store.uri}/{VERSIONS}/{name} holds other content than its name says; find out who changed it"
        )
    return Release(version=name, manifest_sha256=hashlib.sha256(stored.content).hexdigest())
