"""A store in a folder of this machine or of a mounted disk."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import StepError, UserError
from components.core.files import remove_orphans, room_for, sha256_file, staging, write_bytes_atomic
from components.publish.records import MANIFEST, VERSIONS
from components.publish.store import Content, Stored, size_of

LOCK = ".production.lock"
LOCK_TIMEOUT = 60.0
"""Seconds to wait for another publisher, which holds the lock for milliseconds."""
_POLL = 0.01


class FileStore:
    """Versions appear by a rename; the pointer is compared and replaced under a lock.

    The lock is the kernel's (flock): it ends with the process that holds it, also when that is killed, so it can never
    be left behind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def uri(self) -> str:
        """URI of the folder."""
        return self.folder.as_uri()

    def check(self) -> None:
        """See `Store.check`."""
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(
                f"publish.to: {existing} is no folder that can be written; give another or change its rights"
            )

    def read(self, key: str) -> Stored | None:
        """See `Store.read`."""
        try:
            content = (self.folder / key).read_bytes()
        except FileNotFoundError:
            return None
        return Stored(content, hashlib.sha256(content).hexdigest())

    def copy_to(self, key: str, path: Path) -> bool:
        """See `Store.copy_to`."""
        source = self.folder / key
        if not source.is_file():
            return False
        with room_for(path, source.stat().st_size):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
        return True

    def digest(self, key: str) -> str | None:
        """See `Store.digest`."""
        source = self.folder / key
        return sha256_file(source) if source.is_file() else None

    def versions(self) -> list[str]:
        """See `Store.versions`."""
        return [path.parent.name for path in (self.folder / VERSIONS).glob(f"*/{MANIFEST}")]

    def swap(self, key: str, content: bytes, expected: str | None) -> bool:
        """See `Store.swap`."""
        with room_for(self.folder, len(content)):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                for left_behind in self.folder.glob(f".{key}.*.tmp"):
                    left_behind.unlink()
                current = self.read(key)
                if (current.tag if current else None) != expected:
                    return False
                write_bytes_atomic(self.folder / key, content)
                return True

    def add_version(self, version: str, files: Mapping[str, Content], manifest: bytes) -> None:
        """See `Store.add_version`."""
        target = self.folder / VERSIONS / version
        if target.exists():
            remove_orphans(target.parent)
            return
        needed = sum(map(size_of, files.values()))
        with room_for(target, needed), staging(target, replace=False) as folder:
            for name, content in files.items():
                _write(folder / name, content)
            write_bytes_atomic(folder / MANIFEST, manifest)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        until = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise StepError(
                        f"{self.folder / LOCK} was locked for {LOCK_TIMEOUT:.0f} s by another publisher; "
                        "see what it is doing and run again"
                    ) from error
                time.sleep(_POLL)
            else:
                return


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
