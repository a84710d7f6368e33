"""Server-side encryption of what is written to S3: asked for with every request that makes an object."""

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.core.errors import UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ENCRYPTION, KEY = "HASTEN_S3_ENCRYPTION", "HASTEN_S3_KMS_KEY"
"""Environment variables: one of `KINDS`, and the id or ARN of a KMS key."""
KINDS = ("AES256", "aws:kms", "aws:kms:dsse")
_KEY = re.compile(r"[A-Za-z0-9:/_-]{1,2048}")
_WRITES = ("PutObject", "CreateMultipartUpload", "CopyObject")
"""Requests that say how an object is encrypted; the parts of an upload follow its beginning."""


@dataclass(frozen=True)
class Encryption:
    """What is asked for; nothing leaves it to the bucket's own default."""

    kind: str = ""
    """One of `KINDS`, or nothing."""
    key: str = ""
    """Of KMS; empty: the bucket's."""

    @staticmethod
    def of_environment() -> "Encryption":
        """What `HASTEN_S3_ENCRYPTION` and `HASTEN_S3_KMS_KEY` say.

        Raises:
            UserError: they say what there is not.
        """
        kind, key = os.environ.get(ENCRYPTION, ""), os.environ.get(KEY, "")
        if kind and kind not in KINDS:
            raise UserError(f"{ENCRYPTION}: given {kind!r}, accepted: {', '.join(KINDS)}")
        if key and not kind.startswith("aws:kms"):
            raise UserError(f"{KEY} goes with {ENCRYPTION}=aws:kms; set both, or neither")
        if key and not _KEY.fullmatch(key):
            raise UserError(f"{KEY} is no id or ARN of a KMS key")
        return Encryption(kind, key)

    def apply(self, client: "S3Client") -> None:
        """Makes a client ask for it with every object that it writes, however it is written."""
        if not self.kind:
            return
        wanted = {"ServerSideEncryption": self.kind} | ({"SSEKMSKeyId": self.key} if self.key else {})

        def ask(params: dict[str, Any], **_: Any) -> dict[str, Any]:
            return wanted | params

        for write in _WRITES:
            # What a handler of this event returns takes the place of the parameters, whatever its type says.
            client.meta.events.register(f"provide-client-params.s3.{write}", ask)  # type: ignore[arg-type]
