"""Puts an older version back into production, after every byte of it was compared with its manifest."""

from dataclasses import dataclass
from hashlib import sha256

from components.core.errors import StepError, UserError
from components.core.stepping import progress
from components.publish.facts import measured
from components.publish.pointer import point_to, read_production
from components.publish.published import read_version
from components.publish.records import MANIFEST, VERSIONS, Production, Release, VersionManifest
from components.publish.store import Store


@dataclass(frozen=True)
class Listed:
    """A version as `list_versions` shows it."""

    version: str
    state: str
    """``in production``, ``released`` (was in production), ``withdrawn`` (taken back) or ``never released``."""
    runtime: str = ""
    techniques: str = ""
    accuracy: float | None = None
    p50_ms: float | None = None


def list_versions(store: Store) -> list[Listed]:
    """Every version that is whole: the one in production, then the released ones, newest first, then the others.

    Raises:
        UserError: nothing was published there.
        StepError: the pointer is damaged.
    """
    production = _production(store)
    there = set(store.versions())
    released = dict.fromkeys([production.version, *(release.version for release in production.history)])
    ordered = [*released, *sorted(there - set(released))]
    return [_listed(store, version, production, version in released) for version in ordered if version in there]


def run_rollback(store: Store, to: str = "") -> Production:
    """Makes an older version the one in production again.

    The version's files were never changed, so it comes back byte for byte; that is checked before the pointer moves.
    The version that leaves is marked as withdrawn: retraining never promotes it again by itself.

    Args:
        store: of the model.
        to: version; empty: the latest one before the present that was not withdrawn.

    Returns:
        The new pointer.

    Raises:
        UserError: there is nothing to go back to, or no such version, or it is in production already.
        StepError: the version is damaged, or somebody else published meanwhile.
    """
    production = _production(store)
    target = to or _latest_good(store, production)
    if target == production.version:
        raise UserError(f"{store.uri}: {target} is in production already; {_choice(store, production)}")
    release = _checked(store, target, production)
    moved = point_to(store, release, replaces=production.version, withdrawing=True)
    progress(f"in production: {moved.version}; withdrawn: {production.version}")
    return moved


def _production(store: Store) -> Production:
    store.check()
    production = read_production(store)
    if production is None:
        raise UserError(f"{store.uri}: nothing is in production there; give the folder of a published model")
    return production


def _latest_good(store: Store, production: Production) -> str:
    bad = production.withdrawn
    for release in production.history:
        if release.version != production.version and release.version not in bad:
            return release.version
    raise UserError(
        f"{store.uri}: there is no version before {production.version} to go back to; {_choice(store, production)}"
    )


def _choice(store: Store, production: Production) -> str:
    others = sorted(set(store.versions()) - {production.version})
    return f"--to takes one of {', '.join(others)}" if others else "there is no other version"


def _checked(store: Store, version: str, production: Production) -> Release:
    """The version's release; every file was read and is what its manifest says."""
    folder = f"{VERSIONS}/{version}"
    stored = store.read(f"{folder}/{MANIFEST}") if version in store.versions() else None
    if stored is None:
        raise UserError(f"{store.uri} has no version {version!r}; {_choice(store, production)}")
    digest = sha256(stored.content).hexdigest()
    known = {release.manifest_sha256 for release in production.history if release.version == version}
    if known and digest not in known:
        raise StepError(f"{store.uri}/{folder}/{MANIFEST} is not the one that was released; choose another version")
    try:
        manifest = VersionManifest.model_validate_json(stored.content)
    except ValueError as error:
        raise StepError(f"{store.uri}/{folder}/{MANIFEST} cannot be read; choose another version") from error
    for number, file in enumerate(manifest.files):
        progress(f"comparing {file.path}", number, len(manifest.files))
        if store.digest(f"{folder}/{file.path}") != file.sha256:
            raise StepError(
                f"{store.uri}/{folder}/{file.path} is missing or not what was published; choose another version"
            )
    return Release(version=version, manifest_sha256=digest)


def _listed(store: Store, version: str, production: Production, released: bool) -> Listed:
    if version == production.version:
        state = "in production"
    elif version in production.withdrawn:
        state = "withdrawn"
    else:
        state = "released" if released else "never released"
    stored = store.read(f"{VERSIONS}/{version}/{MANIFEST}")
    try:
        manifest = VersionManifest.model_validate_json(stored.content if stored else b"")
    except ValueError:
        return Listed(version, f"{state}, damaged")
    numbers = _numbers(store, version)
    return Listed(
        version,
        state,
        str(manifest.runtime),
        ", ".join(manifest.techniques),
        numbers.get("accuracy"),
        numbers.get("latency_p50_ms"),
    )


def _numbers(store: Store, version: str) -> dict[str, float]:
    """What was measured of a version, as far as its report can be read."""
    try:
        board = read_version(store, version).board
    except StepError:
        return {}
    if board is None or board.winner is None:
        return {}
    return {name: value for name, value in measured(board.row(board.winner)).items() if isinstance(value, float)}
