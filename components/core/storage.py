"""One door to files wherever they are: a path, `file://` or `s3://`."""

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.core.errors import UserError
from components.core.files import (
    confined,
    link_or_copy,
    room_for,
    sha256_file,
    sha256_tree,
    shortened,
    staging,
    write_bytes_atomic,
    write_json_atomic,
)
from components.core.formats import size as size_text
from components.core.s3 import S3, S3Object, cache_folder, parse_s3, public_url

__all__ = [
    "is_remote",
    "local_path",
    "materialize",
    "sha256_file",
    "sha256_tree",
    "write_bytes_atomic",
    "write_json_atomic",
]


def is_remote(uri: str) -> bool:
    """Whether the URI is in an S3 store."""
    return uri.startswith("s3://")


def local_path(uri: str) -> Path:
    """The path that a plain path or a `file://` URI names; it need not exist.

    Raises:
        UserError: a URI of another kind, or a `file://` URI of another host.
    """
    if not uri or "\0" in uri:
        raise UserError(f"{shortened(uri)} is no path; give a path, file:///path or s3://bucket/key")
    if "://" not in uri:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise UserError(
            f"{shortened(public_url(uri))}: {parts.scheme}:// is not supported; give a path, file:///path or s3://bucket/key"
        )
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UserError(f"{shortened(uri)} names the host {parts.netloc!r}; write file:///path with three slashes")
    return Path(unquote(uri.split("://", 1)[1].removeprefix("localhost")))


def materialize(uri: str, max_bytes: float | None = None, endpoint: str | None = None) -> Path:
    """A local file or folder with the content of `uri`.

    A local path is returned as it is. An S3 object, or all objects below an S3 prefix, are downloaded once and kept
    in a cache by ETag and size; what comes back from there is read-only.

    Args:
        uri: path, `file:///path`, `s3://bucket/key` or `s3://bucket/prefix`.
        max_bytes: refuse to download more than this.
        endpoint: S3 endpoint; default: the environment's.

    Raises:
        UserError: nothing is there, too large, no access, no space.
    """
    if not is_remote(uri):
        path = local_path(uri)
        if not path.exists():
            raise UserError(f"{path} does not exist; check the path")
        return path
    store = S3(endpoint)
    location = parse_s3(uri)
    found = store.find(location) if location.key and not location.key.endswith("/") else None
    if found is not None:
        check_size(uri, found.size, max_bytes)
        return store.download([found], f"downloading {uri}")[0]
    objects = store.below(location)
    if not objects:
        raise UserError(
            f"{uri} does not exist: no object of that key and none below it; check the URI and the endpoint"
        )
    check_size(uri, sum(item.size for item in objects.values()), max_bytes)
    return _download_folder(store, uri, objects)


def check_size(what: str, size: int, max_bytes: float | None) -> None:
    """Refuses what is larger than a limit.

    Raises:
        UserError: it is.
    """
    if max_bytes is not None and size > max_bytes:
        raise UserError(
            f"{what} is {size_text(size)}, more than the limit of {size_text(max_bytes)}; "
            "raise the limit (data.max_download) or give less data"
        )


def _download_folder(store: S3, uri: str, objects: dict[str, S3Object]) -> Path:
    listing = sorted((name, item.etag, item.size) for name, item in objects.items())
    digest = hashlib.sha256(f"{store.shown_endpoint}\0{uri}\0{listing!r}".encode()).hexdigest()
    target = cache_folder() / "folders" / digest
    for name in objects:
        confined(target, name, uri)
    if target.exists():
        return target
    files = store.download(list(objects.values()), f"downloading {uri}")
    with room_for(target.parent, needed=0), staging(target, replace=False) as folder:
        for name, file in zip(objects, files, strict=True):
            link_or_copy(file, confined(folder, name, uri), uri)
    return target
