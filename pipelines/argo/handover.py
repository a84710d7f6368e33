"""What a step hands to the next one where there is no KFP: folders and long texts in S3, short texts by themselves.

Argo keeps parameters in the workflow object, which has a limit of its own, and passes them on command lines; a board of
many candidates fits into neither. A long text is therefore an object in S3, and the parameter is ``@s3://...``.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.core.s3 import PARALLEL_DOWNLOADS, S3, S3Location, parse_s3

INLINE = 1024
"""Characters of the longest text that travels by itself."""
REFERENCE = "@s3://"


def resolved(value: str) -> str:
    """The text that a parameter stands for.

    Raises:
        UserError: the object that it refers to cannot be read.
    """
    if not value.startswith(REFERENCE):
        return value
    content = read(parse_s3(value[1:]))
    if content is None:
        from components.core.errors import UserError

        raise UserError(f"{value[1:]} does not exist; a step before this one should have written it")
    return content.decode()


def handed_over(value: str, place: S3Location) -> str:
    """The parameter for a text: the text, or a reference to `place`, where it now lies."""
    if len(value) <= INLINE and not value.startswith(REFERENCE):
        return value
    write(place, value.encode())
    return f"@{place.uri}"


def read(place: S3Location) -> bytes | None:
    """A small object, or None if it is not there."""
    store = S3()
    with store.explained(place.uri):
        try:
            return store.client.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
        except store.client.exceptions.NoSuchKey:
            return None


def write(place: S3Location, content: bytes) -> None:
    """Writes a small object."""
    store = S3()
    with store.explained(place.uri):
        store.client.put_object(Bucket=place.bucket, Key=place.key, Body=content)


def upload(path: Path, place: S3Location) -> None:
    """Uploads a file to a key, or all files of a folder below it, several at a time; links are followed."""
    store = S3()

    def send(source: Path, key: str) -> None:
        with store.explained(f"s3://{place.bucket}/{key}"):
            store.client.upload_file(str(source), place.bucket, key)

    if path.is_file():
        send(path, place.key)
        return
    files = [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names]
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        list(pool.map(lambda file: send(file, f"{place.key}/{file.relative_to(path).as_posix()}"), files))
