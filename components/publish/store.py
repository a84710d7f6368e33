"""Where versions live: what a publisher needs of a place, and the place that a URI names."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from components.core.contracts.job import Publish
from components.core.encryption import Encryption
from components.core.errors import UserError
from components.core.storage import is_remote, local_path, sha256_file

Content = Path | bytes
"""A file of a version: one that is there, or one that was made for it and is small."""


class Stored(NamedTuple):
    """A small object as it was read."""

    content: bytes
    tag: str
    """Changes with the content."""


class Store(Protocol):
    """A folder of one model: `production.json` and `versions/<version>/`."""

    @property
    def uri(self) -> str:
        """URI of the folder."""

    def check(self) -> None:
        """Refuses a place that cannot be reached or written, as far as that shows without writing.

        Raises:
            UserError: one line that says why.
        """

    def read(self, key: str) -> Stored | None:
        """A small object, or None if it is not there."""

    def copy_to(self, key: str, path: Path) -> bool:
        """Copies an object of any size to a new file; False, and no file, if it is not there."""

    def digest(self, key: str) -> str | None:
        """Hex sha256 of what is stored under a key now, read to its end; None if it is not there."""

    def versions(self) -> list[str]:
        """Names of the versions that are whole, in no order."""

    def swap(self, key: str, content: bytes, expected: str | None) -> bool:
        """Writes a small object if it is still as it was.

        Args:
            key: path in the folder.
            content: all of the new content; a reader sees the old or the new, never a part.
            expected: tag of what is replaced; None: there must be nothing.

        Returns:
            False if another writer was faster; then nothing was written.
        """

    def add_version(self, version: str, files: Mapping[str, Content], manifest: bytes) -> None:
        """Adds a version, the manifest last; one that is there already stays as it is.

        Args:
            version: name of its folder.
            files: path in the version's folder -> content.
            manifest: content of its manifest.
        """


def sha256_of(content: Content) -> str:
    """Hex sha256."""
    return sha256_file(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def size_of(content: Content) -> int:
    """Size in bytes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def open_store(publish: Publish, name: str) -> Store:
    """The store of the model `name` at the place that the job publishes to.

    Raises:
        UserError: the URI names no place.
    """
    from components.publish.file_store import FileStore
    from components.publish.s3_store import S3Store

    try:
        if is_remote(publish.to):
            encryption = Encryption(publish.encryption, publish.kms_key or "") if publish.encryption else None
            return S3Store(publish.to, name, publish.endpoint, publish.region, encryption)
        return FileStore(local_path(publish.to) / name)
    except UserError as error:
        raise UserError(f"publish.to: {error}") from error
