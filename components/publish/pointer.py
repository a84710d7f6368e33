"""Moves `production.json`, so that no update of two publishers at once is lost."""

import random
import time

from pydantic import ValidationError

from components.core.errors import StepError
from components.publish.records import PRODUCTION, Production, Release
from components.publish.store import Store

TIMEOUT = 120.0
"""Seconds of losing against other publishers before giving up."""
_LONGEST_WAIT = 0.5


def point_to(store: Store, release: Release, *, replaces: str | None = None, withdrawing: bool = False) -> Production:
    """Makes a release the one in production; does nothing if it is already.

    Compare and swap: the pointer is replaced only if it is still the one that its `history` was made from. Whoever
    loses reads again, so some publisher always gets on.

    Args:
        store: of the model.
        release: a version that is there.
        replaces: the only version that may be replaced; default: any.
        withdrawing: whether the version that is replaced is taken back (a rollback).

    Raises:
        StepError: the pointer is damaged, another version than `replaces` is in production by now, or other publishers
            were faster for two minutes.
    """
    until = time.monotonic() + TIMEOUT
    wait = 0.02
    while True:
        stored = store.read(PRODUCTION)
        if stored is None:
            wanted = _first(release)
        else:
            current = _parse(store, stored.content)
            if (current.version, current.manifest_sha256) == (release.version, release.manifest_sha256):
                return current
            if replaces is not None and current.version != replaces:
                raise StepError(
                    f"{store.uri}: {current.version} went into production meanwhile, in place of {replaces}; run again"
                )
            wanted = current.after(release, withdrawing=withdrawing)
        content = (wanted.model_dump_json(indent=2) + "\n").encode()
        # A write whose answer got lost is repeated by the client and then finds itself: the next turn sees that.
        if store.swap(PRODUCTION, content, stored.tag if stored else None):
            return wanted
        if time.monotonic() > until:
            raise StepError(
                f"{store.uri}/{PRODUCTION} kept changing for {TIMEOUT:.0f} s; see who publishes there and run again"
            )
        time.sleep(random.uniform(0, wait))  # noqa: S311
        wait = min(2 * wait, _LONGEST_WAIT)


def _first(release: Release) -> Production:
    return Production(version=release.version, manifest_sha256=release.manifest_sha256, previous=None, history=[])


def read_production(store: Store) -> Production | None:
    """The pointer, or None before the first release.

    Raises:
        StepError: it is damaged.
    """
    stored = store.read(PRODUCTION)
    return None if stored is None else _parse(store, stored.content)


def _parse(store: Store, content: bytes) -> Production:
    try:
        return Production.model_validate_json(content)
    except ValidationError as error:
        raise StepError(
            f"{store.uri}/{PRODUCTION} is no pointer that this version of hasten can read; restore or remove it"
        ) from error
