"""Reads a version back from the place that it was published to."""

from dataclasses import dataclass
from hashlib import sha256

from pydantic import ValidationError

from components.core.contracts.job import Publish
from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import StepError, UserError
from components.core.storage import is_remote
from components.publish.pointer import read_production
from components.publish.provenance import PROVENANCE, Provenance
from components.publish.records import MANIFEST, VERSIONS, VersionManifest
from components.publish.store import Store, open_store

BOARD = "leaderboard.json"


@dataclass(frozen=True)
class Published:
    """A version and what is known of it."""

    uri: str
    """Of the version's folder."""
    manifest: VersionManifest
    board: Leaderboard | None
    """Of the run that published it; None where no leaderboard lies beside the report."""
    provenance: Provenance

    @property
    def report_uri(self) -> str:
        """Folder of the report and the model card."""
        return f"{self.uri}/{self.manifest.report}"


def read_published(uri: str, endpoint: str | None = None, region: str | None = None) -> Published:
    """Reads a version.

    Args:
        uri: a model's folder (``s3://bucket/prefix/<name>``), which means its version in production, or the folder of
            one version in it (``.../versions/<version>``), as `publish` returns it.
        endpoint: S3 endpoint, for stores other than AWS.
        region: of the bucket.

    Raises:
        UserError: nothing is published there, or the place cannot be read.
        StepError: what is there is damaged.
    """
    store, version = open_published(uri, endpoint, region)
    expected = None
    if not version:
        production = read_production(store)
        if production is None:
            raise UserError(f"{store.uri}: nothing is in production there; give the folder of a published model")
        version, expected = production.version, production.manifest_sha256
    return read_version(store, version, expected)


def open_published(uri: str, endpoint: str | None = None, region: str | None = None) -> tuple[Store, str]:
    """The store of a published model, and the version that the URI names; empty for the model's folder.

    Raises:
        UserError: the URI names neither.
    """
    uri = uri.rstrip("/")
    folder, found, version = uri.rpartition(f"/{VERSIONS}/")
    place, _, name = (folder if found else uri).rpartition("/")
    if "://" not in place or not name or (found and "/" in version):
        raise UserError(
            f"given {uri!r}, accepted: the URI of a published model, for instance s3://bucket/models/trees, or of one "
            "of its versions, as `publish` says it"
        )
    return open_store(_place(place, endpoint, region), name), version if found else ""


def read_version(store: Store, version: str, manifest_sha256: str | None = None) -> Published:
    """Reads one version of a store.

    Raises:
        UserError: there is no such version.
        StepError: its manifest is not the one that the pointer names, or cannot be read.
    """
    where = f"{VERSIONS}/{version}"
    stored = store.read(f"{where}/{MANIFEST}")
    if stored is None:
        raise UserError(f"{store.uri}/{where}: there is no such version")
    if manifest_sha256 not in (None, sha256(stored.content).hexdigest()):
        raise StepError(f"{store.uri}/{where}/{MANIFEST} is not the one that production points to; publish again")
    try:
        manifest = VersionManifest.model_validate_json(stored.content)
        board = store.read(f"{where}/{manifest.report}/{BOARD}")
        provenance = store.read(f"{where}/{manifest.report}/{PROVENANCE}")
        return Published(
            uri=f"{store.uri}/{where}",
            manifest=manifest,
            board=Leaderboard.model_validate_json(board.content) if board else None,
            provenance=Provenance.model_validate_json(provenance.content) if provenance else Provenance(),
        )
    except ValidationError as error:
        raise StepError(
            f"{store.uri}/{where} holds what this version of hasten cannot read; publish it again"
        ) from error


def _place(uri: str, endpoint: str | None, region: str | None) -> Publish:
    try:
        return Publish(to=uri, endpoint=endpoint if is_remote(uri) else None, region=region)
    except ValidationError:
        raise UserError(
            f"given {uri!r} and the endpoint {endpoint!r}, accepted: file:///folder or s3://bucket/prefix, and an "
            "endpoint that begins with http:// or https://"
        ) from None
