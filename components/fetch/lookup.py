"""Files that a job names, wherever they are: found, compared, read."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from components.core.errors import UserError
from components.core.files import link_or_copy, sha256_file, unsafe_path
from components.core.s3 import S3, S3Location, S3Object, parse_s3
from components.core.stepping import progress
from components.core.storage import is_remote, local_path


@dataclass(frozen=True)
class Source:
    """A file that exists."""

    place: Path | S3Object
    size: int
    """In bytes."""

    @property
    def shown(self) -> str:
        """Path or URI, for messages."""
        return str(self.place) if isinstance(self.place, Path) else self.place.location.uri

    def identity(self, *, by_content: bool) -> str:
        """Text that changes when the content does: ETag in S3, sha256 here, or size and time where that is enough."""
        if isinstance(self.place, S3Object):
            return f"{self.place.etag} {self.size}"
        return sha256_file(self.place) if by_content else f"{self.size} {self.place.stat().st_mtime_ns}"


class Sources:
    """Looks files up on this machine and in S3; one S3 client for all of them."""

    @cached_property
    def store(self) -> S3:
        """The store that the environment configures."""
        return S3()

    def file(self, field: str, uri: str, accepted: str) -> Source:
        """The file of a job's field.

        Args:
            field: name of the field, for instance `model.weights`.
            uri: what the job says.
            accepted: what the field takes, for the message.

        Raises:
            UserError: no such file; it is empty or cannot be read; the store does not answer.
        """
        try:
            found = self._find_remote(parse_s3(uri)) if is_remote(uri) else _find_local(local_path(uri))
        except UserError as error:
            raise UserError(f"{field}: {error}") from error
        if found is None:
            raise UserError(f"{field}: {uri} does not exist; give {accepted}")
        if found.size == 0:
            raise UserError(f"{field}: {uri} is empty; give {accepted}")
        return found

    def folder(self, field: str, uri: str, names: Iterable[str]) -> dict[str, Source]:
        """Those of the named files that exist in a folder, by name.

        Raises:
            UserError: there is no such folder, or the store does not answer.
        """
        try:
            if is_remote(uri):
                return self._folder_remote(parse_s3(uri), set(names))
            folder = local_path(uri)
            if not folder.is_dir():
                kind = "is a file" if folder.exists() else "does not exist"
                raise UserError(f"{uri} {kind}; give the folder of the images or its s3:// prefix")
            found = {name: _find_local(folder / name) for name in names if not unsafe_path(name)}
        except UserError as error:
            raise UserError(f"{field}: {error}") from error
        return {name: source for name, source in found.items() if source is not None}

    def below(self, field: str, uri: str, suffixes: tuple[str, ...]) -> dict[str, Source]:
        """Every file with one of the suffixes in a folder and the folders in it, by its relative path.

        Raises:
            UserError: there is no such folder, or the store does not answer.
        """
        try:
            if is_remote(uri):
                listed = self.store.below(parse_s3(uri))
                return {name: Source(item, item.size) for name, item in listed.items() if _ends(name, suffixes)}
            folder = local_path(uri)
            if not folder.is_dir():
                kind = "is a file" if folder.exists() else "does not exist"
                raise UserError(f"{uri} {kind}; give the folder of the images or its s3:// prefix")
            paths = (path for path in folder.rglob("*") if _ends(path.name, suffixes))
            found = {path.relative_to(folder).as_posix(): _find_local(path) for path in paths}
        except UserError as error:
            raise UserError(f"{field}: {error}") from error
        return {name: source for name, source in found.items() if source is not None and not unsafe_path(name)}

    def beside(self, field: str, model: Source, location: str) -> Source:
        """The file at a relative location in the folder of a model file.

        Raises:
            UserError: it is missing, or a link leads out of the model's folder.
        """
        if isinstance(model.place, S3Object):
            folder, slash, _ = model.place.location.key.rpartition("/")
            uri = S3Location(model.place.location.bucket, f"{folder}{slash}{location}").uri
        else:
            path = model.place.parent / location
            if not path.resolve().is_relative_to(model.place.parent.resolve()):
                raise UserError(
                    f"{field}: external data {location!r} of {model.shown} is a link that leaves the model's folder; "
                    "put the file itself there"
                )
            uri = str(path)
        return self.file(field, uri, f"the external data file that {model.shown} refers to")

    def read(self, source: Source, message: str) -> Path:
        """A local file with the content of the source, downloaded if need be; not to be changed."""
        if isinstance(source.place, Path):
            return source.place
        return self.store.download([source.place], message)[0]

    def copy(self, sources: dict[Path, Source], message: str) -> None:
        """Puts each source at its target; what came from S3 is linked to the cache where the disk allows it."""
        remote = {target: source.place for target, source in sources.items() if isinstance(source.place, S3Object)}
        if remote:
            for target, file in zip(remote, self.store.download(list(remote.values()), message), strict=True):
                link_or_copy(file, target, str(target))
        local = {target: source.place for target, source in sources.items() if isinstance(source.place, Path)}
        for done, (target, file) in enumerate(local.items(), start=1):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            progress(message, done, len(local))

    def _find_remote(self, location: S3Location) -> Source | None:
        found = self.store.find(location)
        return Source(found, found.size) if found else None

    def _folder_remote(self, location: S3Location, names: set[str]) -> dict[str, Source]:
        objects = self.store.below(location)
        if not objects:
            raise UserError(f"{location.uri} holds no object; give the folder of the images or its s3:// prefix")
        return {name: Source(item, item.size) for name, item in objects.items() if name in names}


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not name.rpartition("/")[2].startswith(".")


def _find_local(path: Path) -> Source | None:
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check its rights") from error
    if size is None:
        return None
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read; check its rights")
    return Source(path, size)
