"""A store in a bucket, guarded by conditional writes (If-Match, If-None-Match)."""

import hashlib
import mimetypes
from collections.abc import Mapping
from pathlib import Path

from components.core.encryption import Encryption
from components.core.errors import StepError
from components.core.files import link_or_copy, room_for
from components.core.s3 import S3, S3Location, is_conflict, parse_s3
from components.core.stepping import progress
from components.publish.records import MANIFEST, VERSIONS
from components.publish.store import Content, Stored, sha256_of, size_of

_CHUNK = 1 << 20
_ONE_REQUEST = 8 << 20
"""Bytes; larger files go up in parts, several at a time."""


class S3Store:
    """Objects of a version are uploaded first and its manifest last; what no manifest names is not there."""

    def __init__(
        self,
        to: str,
        name: str,
        endpoint: str | None = None,
        region: str | None = None,
        encryption: Encryption | None = None,
    ) -> None:
        place = parse_s3(to)
        prefix = place.key.strip("/")
        self._root = S3Location(place.bucket, f"{prefix}/{name}" if prefix else name)
        self._s3 = S3(endpoint, region, encryption)

    @property
    def uri(self) -> str:
        """URI of the folder."""
        return self._root.uri

    def check(self) -> None:
        """See `Store.check`."""
        with self._s3.explained(self.uri):
            self._s3.client.list_objects_v2(Bucket=self._root.bucket, Prefix=f"{self._root.key}/", MaxKeys=1)

    def read(self, key: str) -> Stored | None:
        """See `Store.read`."""
        place = self._at(key)
        client = self._s3.client
        with self._s3.explained(place.uri):
            try:
                answer = client.get_object(Bucket=place.bucket, Key=place.key)
            except client.exceptions.NoSuchKey:
                return None
            return Stored(answer["Body"].read(), answer["ETag"])

    def copy_to(self, key: str, path: Path) -> bool:
        """See `Store.copy_to`."""
        found = self._s3.find(self._at(key))
        if found is None:
            return False
        with room_for(path, found.size):
            path.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(self._s3.download([found], f"downloading {Path(key).name}")[0], path, self._at(key).uri)
        return True

    def digest(self, key: str) -> str | None:
        """See `Store.digest`."""
        place, digest = self._at(key), hashlib.sha256()
        client = self._s3.client
        with self._s3.explained(place.uri):
            try:
                body = client.get_object(Bucket=place.bucket, Key=place.key)["Body"]
            except client.exceptions.NoSuchKey:
                return None
            for chunk in body.iter_chunks(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def versions(self) -> list[str]:
        """See `Store.versions`."""
        names = self._s3.below(self._at(VERSIONS))
        return [version for version, _, file in (name.partition("/") for name in names) if file == MANIFEST]

    def swap(self, key: str, content: bytes, expected: str | None) -> bool:
        """See `Store.swap`."""
        from botocore.exceptions import ClientError

        place = self._at(key)
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        with self._s3.explained(place.uri):
            try:
                self._s3.client.put_object(
                    Bucket=place.bucket,
                    Key=place.key,
                    Body=content,
                    ContentType="application/json",
                    **condition,  # type: ignore[arg-type]
                )
            except ClientError as error:
                # Some stores say 404 where the object to be replaced was removed meanwhile.
                if is_conflict(error) or (expected is not None and error.response["Error"]["Code"] == "NoSuchKey"):
                    return False
                raise
        return True

    def add_version(self, version: str, files: Mapping[str, Content], manifest: bytes) -> None:
        """See `Store.add_version`."""
        manifest_key = f"{VERSIONS}/{version}/{MANIFEST}"
        if self.read(manifest_key) is None:
            place = self._at(f"{VERSIONS}/{version}")
            left_behind = self._s3.below(place)
            for number, (name, content) in enumerate(files.items(), start=1):
                self._upload(S3Location(place.bucket, f"{place.key}/{name}"), content, resume=name in left_behind)
                progress("uploading the version", number, len(files))
            self.swap(manifest_key, manifest, expected=None)
        # The manifest is there now, from here or from another publisher. A store that still writes it "only if it is
        # absent" ignores conditions, and two publishers could lose an update of the pointer.
        stored = self.read(manifest_key)
        if stored is not None and self.swap(manifest_key, stored.content, expected=None):
            raise StepError(
                f"{self.uri}: the store ignores conditional writes (If-None-Match), so the production pointer cannot "
                "be moved safely; use a store that honours them"
            )

    def _upload(self, place: S3Location, content: Content, *, resume: bool) -> None:
        """Uploads a file; with `resume` only if the one that a killed publisher left there is another."""
        digest, size = sha256_of(content), size_of(content)
        if resume and self._has(place, digest, size):
            return
        client = self._s3.client
        extra = {
            "Metadata": {"sha256": digest},
            "ContentType": mimetypes.guess_type(place.key)[0] or "application/octet-stream",
        }
        with self._s3.explained(place.uri):
            if isinstance(content, Path) and size > _ONE_REQUEST:
                client.upload_file(str(content), place.bucket, place.key, ExtraArgs=extra)
            else:
                body = content.read_bytes() if isinstance(content, Path) else content
                client.put_object(Bucket=place.bucket, Key=place.key, Body=body, **extra)  # type: ignore[arg-type]

    def _has(self, place: S3Location, digest: str, size: int) -> bool:
        from botocore.exceptions import ClientError

        with self._s3.explained(place.uri):
            try:
                head = self._s3.client.head_object(Bucket=place.bucket, Key=place.key)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return False
                raise
        return head["ContentLength"] == size and head["Metadata"].get("sha256") == digest

    def _at(self, key: str) -> S3Location:
        return S3Location(self._root.bucket, f"{self._root.key}/{key}")
