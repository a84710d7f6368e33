"""S3 through boto3: any endpoint, path style, a download cache, and every failure as one line without secrets."""

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.core.encryption import Encryption
from components.core.endpoints import RefusedAddressError, check_endpoint, guard
from components.core.errors import UserError
from components.core.files import room_for, scratch, shortened
from components.core.formats import size as size_text
from components.core.stepping import progress

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CACHE = "HASTEN_CACHE"
"""Environment variable: folder of the download cache; default `$XDG_CACHE_HOME/hasten` or `~/.cache/hasten`."""
PARALLEL_DOWNLOADS = 8
_CHUNK = 1 << 20
_ATTEMPTS = 3
_REGION = re.compile(r"[a-z0-9-]{1,63}")
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict")


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key or prefix in it."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """As `s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class S3Object:
    """An object as the store listed it; `etag` changes with its content."""

    location: S3Location
    etag: str
    size: int


def parse_s3(uri: str) -> S3Location:
    """Splits `s3://bucket/key`.

    Raises:
        UserError: it is no S3 URI with a bucket, or holds a password, which then stands in no message.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if "@" in bucket:
        raise UserError(
            f"{shortened(public_url(uri))} was given with a user name or password; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY and write s3://bucket/key"
        )
    if not uri.startswith("s3://") or not bucket or "\0" in uri:
        raise UserError(f"{shortened(uri)} is no S3 URI; write s3://bucket/key")
    return S3Location(bucket, key)


def cache_folder() -> Path:
    """Folder that downloads are kept in; may be removed whenever nothing runs."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hasten"


class S3:
    """One store: an endpoint with the credentials that boto3 finds.

    Args:
        endpoint: URL of the store as a job names it, which `check_endpoint` judges; default: `AWS_ENDPOINT_URL_S3` or
            `AWS_ENDPOINT_URL`, else AWS itself.
        region: default: the one that boto3 finds, else `us-east-1`.
        encryption: of everything that is written; default: the environment's (`Encryption.of_environment`).
    """

    def __init__(
        self, endpoint: str | None = None, region: str | None = None, encryption: Encryption | None = None
    ) -> None:
        self.endpoint = endpoint
        self.region = region
        self.encryption = encryption

    @cached_property
    def client(self) -> "S3Client":
        """The boto3 client, made on first use.

        Raises:
            UserError: the endpoint or the region is none, or a job may not name it; or the environment asks for an
                encryption that there is not.
        """
        if self.endpoint:
            check_endpoint(self.endpoint)
        if self.region and not _REGION.fullmatch(self.region):
            raise UserError(f"the S3 region {shortened(self.region)} is none; write it like eu-central-1")
        settings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
        try:
            encryption = self.encryption or Encryption.of_environment()
            return _client(self.endpoint, self.region, encryption, settings, os.getpid())
        except ValueError as error:  # what boto3 raises for a URL without a host
            raise UserError(
                f"the S3 endpoint {shortened(self.shown_endpoint)} is no URL; write http(s)://host:port"
            ) from error

    def find(self, location: S3Location) -> S3Object | None:
        """The object of that very key, or None.

        Raises:
            UserError: no such bucket, no access, no answer.
        """
        from botocore.exceptions import ClientError

        with self.explained(location.uri):
            try:
                found = self.client.head_object(Bucket=location.bucket, Key=location.key)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                # HEAD has no body that would say whether the key or the bucket is missing; this raises for the bucket.
                self.client.list_objects_v2(Bucket=location.bucket, Prefix=location.key, MaxKeys=1)
                return None
        return S3Object(location, found["ETag"], found["ContentLength"])

    def below(self, location: S3Location) -> dict[str, S3Object]:
        """All objects below a prefix (taken as a folder): path relative to it -> object; without folder markers.

        Raises:
            UserError: no such bucket, no access, no answer.
        """
        prefix = f"{location.key.rstrip('/')}/" if location.key.strip("/") else ""
        objects = {}
        with self.explained(location.uri):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=prefix)
            for page in pages:
                for item in page.get("Contents", []):
                    name = item["Key"].removeprefix(prefix)
                    if name and not name.endswith("/"):
                        place = S3Location(location.bucket, item["Key"])
                        objects[name] = S3Object(place, item["ETag"], item["Size"])
        return objects

    def download(self, objects: list[S3Object], message: str = "downloading") -> list[Path]:
        """Brings objects into the cache, several at a time; those that are there already cost nothing.

        Returns:
            Read-only files, in the order of `objects`; their names say nothing about the keys.

        Raises:
            UserError: an object changed meanwhile, no access, no answer, no space.
        """
        folder = cache_folder() / "s3"
        targets = [folder / self._cache_name(item) for item in objects]
        missing = {target: item for item, target in zip(objects, targets, strict=True) if not _holds(target, item.size)}
        if not missing:
            return targets
        done, total = 0, sum(item.size for item in missing.values())
        with room_for(folder, total), scratch(folder) as partial, ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            jobs = [
                pool.submit(self._download_one, item, partial / target.name, target) for target, item in missing.items()
            ]
            try:
                for job in jobs:
                    done += job.result()
                    progress(message, done, total)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return targets

    def _download_one(self, item: S3Object, partial: Path, target: Path) -> int:
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        # botocore retries requests, not bodies that break off.
        broken_off = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.explained(item.location.uri, passing=broken_off if attempt < _ATTEMPTS else ()):
                    self._stream(item, partial)
                break
            except broken_off:
                continue
        partial.chmod(0o444)
        partial.replace(target)
        return item.size

    def _stream(self, item: S3Object, target: Path) -> None:
        place = item.location
        body = self.client.get_object(Bucket=place.bucket, Key=place.key, IfMatch=item.etag)["Body"]
        with target.open("wb") as stream:
            for chunk in body.iter_chunks(_CHUNK):
                stream.write(chunk)
        if target.stat().st_size != item.size:
            raise UserError(
                f"{place.uri}: {size_text(target.stat().st_size)} came instead of {size_text(item.size)}; run again"
            )

    def _cache_name(self, item: S3Object) -> str:
        identity = (public_url(self.client.meta.endpoint_url), item.location.uri, item.etag, str(item.size))
        return hashlib.sha256("\0".join(identity).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def shown_endpoint(self) -> str:
        """The endpoint's URL without a user name or password; a word if it is not known."""
        if "client" in self.__dict__:
            return public_url(self.client.meta.endpoint_url)
        given = self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return public_url(given) if given else "S3"

    @contextmanager
    def explained(self, uri: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Turns whatever boto3 raises in the block into a UserError of one line.

        Args:
            uri: what the block is about.
            passing: exceptions of boto3 that the caller handles itself.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except passing:
            raise
        except (Boto3Error, BotoCoreError, ClientError) as error:
            refused = _refused(error)
            if refused is not None:
                raise UserError(f"{shortened_uri(uri)}: {refused}") from error
            # A transfer of many parts hides what failed in it.
            cause = (error.__cause__ or error.__context__) if isinstance(error, Boto3Error) else None
            raise UserError(explain(cause or error, uri, self.shown_endpoint)) from error
        except RecursionError as error:  # boto3 asks for the bucket's region again at each redirect
            raise UserError(
                f"{shortened_uri(uri)}: {self.shown_endpoint} answers with redirects only; check the endpoint"
            ) from error
        except UserError as error:
            if uri in str(error):
                raise
            raise UserError(f"{shortened_uri(uri)}: {error}") from error


@lru_cache(maxsize=8)
def _client(
    endpoint: str | None,
    region: str | None,
    encryption: Encryption,
    settings: tuple[tuple[str, str], ...],  # noqa: ARG001  (other credentials, another client)
    process: int,  # noqa: ARG001  (a forked process must not use its parent's connections)
) -> "S3Client":
    """A client; making one costs a tenth of a second, and threads may share it."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=2 * PARALLEL_DOWNLOADS,
        s3={"addressing_style": "path"},
    )
    session = boto3.Session()
    client = session.client(
        "s3", endpoint_url=endpoint, region_name=region or session.region_name or "us-east-1", config=config
    )
    if endpoint:
        guard(client, endpoint)
    encryption.apply(client)
    return client


def _refused(error: BaseException | None) -> RefusedAddressError | None:
    """The refusal of an address among an error's causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, RefusedAddressError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _holds(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


def is_conflict(error: Exception) -> bool:
    """Whether a conditional write lost against another writer."""
    response = getattr(error, "response", {})
    return response.get("Error", {}).get("Code") in _CONFLICTS or _status(response) in (409, 412)


def public_url(url: str) -> str:
    """A URL without user name, password and query; other text up to the first sign of those."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "that was given"
    if not parts.netloc:
        return url.rpartition("@")[2].partition("?")[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def explain(error: BaseException, uri: str, endpoint: str) -> str:
    """One line: the URI, what is wrong with the access to it, what to do. Never a key, secret or token."""
    name = type(error).__name__
    response = getattr(error, "response", None)
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "NoAuthTokenError"):
        reason = "no S3 credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    elif name in ("ProfileNotFound", "ConfigParseError", "ConfigNotFound"):
        reason = f"the AWS configuration cannot be used ({name}); check AWS_PROFILE and ~/.aws"
    elif isinstance(response, dict):
        reason = _explain_answer(response, endpoint)
    elif name in ("ParamValidationError", "InvalidBucketName"):
        reason = "S3 accepts no such bucket or key name; check the URI"
    elif name == "ResponseParserError":
        reason = f"{endpoint} does not answer like an S3 store; check the endpoint"
    elif "Token" in name or "SSO" in name:
        reason = f"the S3 credentials cannot be used ({name}); sign in again"
    else:
        reason = f"{endpoint} cannot be reached ({name}); check the endpoint (publish.endpoint or AWS_ENDPOINT_URL)"
    return f"{shortened_uri(uri)}: {reason}"


def shortened_uri(uri: str) -> str:
    """The URI itself if it prints on one line, else quoted."""
    return uri if uri.isprintable() and len(uri) <= 300 else shortened(uri, 300)


def _explain_answer(response: "dict[str, dict[str, object]]", endpoint: str) -> str:
    code = str(response.get("Error", {}).get("Code", ""))
    status = _status(response)
    if code == "NoSuchBucket":
        return f"{endpoint} has no such bucket; check the bucket's name and the endpoint"
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"):
        return f"{endpoint} refuses the S3 credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "AccessDenied" or status in (401, 403):
        return f"{endpoint} denies access with these credentials; ask for read, list and (to publish) write rights"
    if code == "PreconditionFailed" or status == 412:
        return "the object changed while it was read; run again"
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return "the bucket is in another region; set AWS_REGION (or publish.region)"
    if status == 404:
        return f"{endpoint} has no such object or bucket; check the URI and the endpoint"
    known = code if code.isalnum() else "no S3 error code"
    return f"{endpoint} answered {status} ({known}); check that the endpoint is an S3 store and run again"


def _status(response: "dict[str, dict[str, object]]") -> int:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0
