"""Files on this machine: hashes, atomic writes, folders that appear whole or not at all, paths that stay inside."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components.core.errors import UserError
from components.core.formats import size as size_text

MAX_NAME_BYTES = 255
"""Longest file name that the usual file systems take."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_files(folder: Path) -> dict[str, str]:
    """Relative path -> hex sha256 of every file below a folder, sorted by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def sha256_tree(folder: Path) -> str:
    """Hex sha256 over the names and contents of all files below a folder; times and modes do not count."""
    return sha256_listing(sha256_files(folder))


def sha256_listing(files: Mapping[str, str]) -> str:
    """Hex sha256 over names and hashes, as of `sha256_files`."""
    lines = (f"{name}\0{content}\n" for name, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Writes a file that a reader, or a machine that loses power, sees whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes a JSON file, indented, whole or not at all."""
    write_bytes_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable; does nothing where the file system cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unsafe_path(relative: str) -> str | None:
    """Why a relative path (an object key, a `file_name`) may not be used below a folder, or None if it may."""
    if not relative or "\0" in relative:
        return "is empty or holds a null byte"
    if relative.startswith("/") or "\\" in relative:
        return "is absolute or uses backslashes"
    parts = relative.split("/")
    if ".." in parts:
        return "climbs out of its folder"
    if "" in parts or "." in parts:
        return "has an empty part"
    try:
        too_long = any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts)
    except UnicodeEncodeError:
        return "is no valid text"
    return "has a name that is too long" if too_long else None


def confined(root: Path, relative: str, what: str) -> Path:
    """The path of `relative` below `root`.

    Args:
        root: folder that the path must stay in.
        relative: path with forward slashes, from outside and not trusted.
        what: where the path comes from, for the message.

    Raises:
        UserError: the path would leave the folder or is no usable name.
    """
    reason = unsafe_path(relative)
    if reason:
        raise UserError(
            f"{what}: the path {shortened(relative)} {reason}; use a relative path with forward slashes inside it"
        )
    return root / relative


def shortened(text: str, length: int = 120) -> str:
    """The text quoted on one line, cut in the middle when it is long."""
    quoted = ascii(text) if not text.isprintable() else repr(text)
    return quoted if len(quoted) <= length else f"{quoted[: length // 2]}...{quoted[-length // 2 :]}"


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, removed at the end.

    The folder is held with a lock that the kernel drops when its process dies, even by kill -9; whoever asks for a
    scratch folder next to it removes such orphans first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_orphans(parent)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_orphans(parent: Path) -> None:
    """Removes the scratch folders in `parent` whose process is dead."""
    for orphan in parent.glob(".hasten-*.partial"):
        _remove_if_dead(orphan)


@contextmanager
def staging(target: Path, *, replace: bool) -> Iterator[Path]:
    """A folder to fill; it becomes `target` by one rename when the block ends without an error.

    Args:
        target: the folder that shall appear.
        replace: what to do when `target` is there already and not empty: replace it, or keep it and drop the new one.
    """
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
    with scratch(target.parent) as work:
        folder = work / "content"
        folder.mkdir()
        yield folder
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if replace:
                target.rename(work / "replaced")
                folder.rename(target)
        sync_folder(target.parent)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = parent / f".hasten-{secrets.token_hex(6)}.partial"
        folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _lock(lock) and folder.exists():
            return folder, lock
        # Between mkdir and flock somebody took the folder for an orphan.
        os.close(lock)


def _lock(descriptor: int) -> bool:
    """False if another process holds the lock; a file system without locks has no orphans removed, which is safe."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_if_dead(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


@contextmanager
def room_for(folder: Path, needed: int) -> Iterator[None]:
    """Refuses to start without `needed` bytes of space, and turns a disk that fills up into one clear line.

    Raises:
        UserError: no space, or the folder cannot be written.
    """
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if needed > free:
            raise UserError(_no_space(folder, needed, free))
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise UserError(_no_space(folder, needed, shutil.disk_usage(existing).free)) from error
        if error.errno in _NOT_WRITABLE:
            place = error.filename or folder
            raise UserError(f"{place}: {error.strerror}; give a folder that can be read and written") from error
        raise


def link_or_copy(source: Path, target: Path, what: str) -> None:
    """Puts a file that nobody changes any more at a second place, without a second copy where the disk allows it.

    Raises:
        UserError: the store holds both `a` and `a/b`, which no folder can.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            shutil.copyfile(source, target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{what}: {shortened(target.name)} is both a file and a folder there; rename one of them"
        ) from error


def _no_space(folder: Path, needed: int, free: int) -> str:
    return (
        f"{folder}: no space left: {size_text(needed)} needed, {size_text(free)} free; "
        "free some space or choose another folder"
    )
