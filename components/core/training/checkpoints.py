"""Where a checkpoint is kept: one file or one S3 object, replaced as a whole. What is in it are tensors and numbers."""

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import torch

from components.core.files import write_bytes_atomic
from components.core.s3 import S3, cache_folder, parse_s3
from components.core.stepping import progress
from components.core.storage import is_remote, local_path

_LEFT_OVER = 600.0
"""Seconds after which half a file is nobody's any more."""


class Checkpoints:
    """The last checkpoint of one training.

    Args:
        uri: a path, `file://` or `s3://bucket/key`.
        identity: digest of everything that the training depends on; a checkpoint of another training is not taken up.
    """

    def __init__(self, uri: str, identity: str) -> None:
        self.uri = uri
        self.identity = identity

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint; whoever is killed meanwhile leaves the one before.

        Raises:
            UserError: the store cannot be reached or refuses.
            OSError: the disk is full.
        """
        content = io.BytesIO()
        torch.save({"identity": self.identity, "state": state}, content)
        if not is_remote(self.uri):
            path = local_path(self.uri)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, content.getvalue())
            return
        place, store = parse_s3(self.uri), S3()
        content.seek(0)
        with store.explained(self.uri):  # an object appears when all of it is there
            store.client.upload_fileobj(content, place.bucket, place.key)

    def load(self) -> dict[str, Any] | None:
        """The state of the last checkpoint, on the CPU; None where there is none of this training."""
        content = self._read()
        if content is None:
            return None
        try:
            # Tensors, numbers and text only: no object and no code that could hide in a file is ever run.
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways
            progress(
                f"the checkpoint {self.uri} is damaged ({type(error).__name__}); training starts from the beginning"
            )
            return None
        if not isinstance(found, dict) or found.get("identity") != self.identity:
            progress(f"the checkpoint {self.uri} is of another training; this one starts from the beginning")
            return None
        state: dict[str, Any] = found["state"]
        return state

    def clear(self) -> None:
        """Removes the checkpoint, once what was trained is kept elsewhere."""
        if not is_remote(self.uri):
            local_path(self.uri).unlink(missing_ok=True)
            return
        place, store = parse_s3(self.uri), S3()
        with store.explained(self.uri):
            store.client.delete_object(Bucket=place.bucket, Key=place.key)

    def _read(self) -> bytes | None:
        if not is_remote(self.uri):
            path = local_path(self.uri)
            _remove_leftovers(path)
            return path.read_bytes() if path.is_file() else None
        place, store = parse_s3(self.uri), S3()
        if store.find(place) is None:
            return None
        with store.explained(self.uri):
            return store.client.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()


def _remove_leftovers(path: Path) -> None:
    """Removes what was half written when a process was killed, unless it may still be at it."""
    for partial in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > _LEFT_OVER:
                partial.unlink()


def checkpoints_of(identity: str, bundle_uri: str = "") -> Checkpoints:
    """Where a training of that identity keeps its checkpoint, so that the next try of it finds it.

    Args:
        identity: digest of everything that the training depends on.
        bundle_uri: what is trained on. In an S3 store the checkpoint lies beside it: nothing else outlives a pod and is
            the same for the pod that is tried next. On this machine it is in the cache.
    """
    name = f"{identity[:32]}.pt"
    if is_remote(bundle_uri):
        return Checkpoints(f"{bundle_uri.rstrip('/')}-checkpoints/{name}", identity)
    return Checkpoints(str((cache_folder() / "training" / name).absolute()), identity)
