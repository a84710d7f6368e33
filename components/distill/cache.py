"""Where the outputs of teachers are kept: files whose names say what is in them, written once and whole."""

import hashlib
import json
from pathlib import Path
from typing import Any

from components.core.files import write_bytes_atomic
from components.core.s3 import S3, S3Location, cache_folder, parse_s3
from components.core.storage import is_remote, local_path


class AnswerStore:
    """Files by name, in a folder or below an S3 prefix.

    Args:
        uri: a path, `file://` or `s3://bucket/prefix`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def find(self, name: str) -> Path | None:
        """A local file with what is kept under a name; None if nothing is.

        Raises:
            UserError: the store cannot be reached or refuses.
        """
        if not is_remote(self.uri):
            path = local_path(self.uri) / name
            return path if path.is_file() else None
        store = S3()
        found = store.find(self._place(name))
        return store.download([found], "reading what the teachers answered")[0] if found else None

    def keep(self, name: str, content: bytes) -> None:
        """Keeps it; whoever is killed meanwhile leaves nothing half written.

        Raises:
            UserError: the store cannot be reached or refuses.
            OSError: the disk is full.
        """
        if not is_remote(self.uri):
            path = local_path(self.uri) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, content)
            return
        place, store = self._place(name), S3()
        with store.explained(place.uri):
            store.client.put_object(Bucket=place.bucket, Key=place.key, Body=content)

    def _place(self, name: str) -> S3Location:
        folder = parse_s3(self.uri)
        return S3Location(folder.bucket, f"{folder.key}/{name}" if folder.key else name)


def store_of(given: str | None, bundle_uri: str) -> AnswerStore:
    """Where answers are kept.

    Args:
        given: what the job says.
        bundle_uri: of the data. Where the job says nothing, answers about a bundle in S3 lie beside it, and those about
            a local one are in the cache.
    """
    if given:
        return AnswerStore(given)
    if is_remote(bundle_uri):
        return AnswerStore(f"{bundle_uri.rstrip('/')}-answers")
    return AnswerStore(str((cache_folder() / "answers").absolute()))


def digest_of(facts: dict[str, Any]) -> str:
    """Hex digest of facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
