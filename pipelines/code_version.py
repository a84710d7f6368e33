"""One short text that changes whenever the same inputs could give another result: it is part of every cache key.

KFP's key holds a component's thin body, its image and its arguments, not the library that the body calls. On a laptop
the image says nothing at all, so this stands in for it: our sources, the versions that do the work, Python and the
processor. The user's model, its factory and the data are in another part of the key, `source_digest`.
"""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path

from components.core.machine import cpu_flags, cpu_model, package_versions

_MORE_PACKAGES = ("onnxscript", "onnx-graphsurgeon", "safetensors")


def code_version() -> str:
    """Sixteen hex digits: a hash of hasten's sources, the working packages' versions, Python and the processor."""
    digest = hashlib.sha256()
    for line in _facts():
        digest.update(f"{line}\n".encode())
    for name, content in _own_sources():
        digest.update(f"{name}\n".encode() + content)
    return digest.hexdigest()[:16]


def _facts() -> Iterator[str]:
    versions = dict(package_versions())
    for package in _MORE_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    yield from (f"{package} {version}" for package, version in sorted(versions.items()))
    yield f"python {platform.python_version()} {platform.machine()}"
    yield f"cpu {cpu_model()} {' '.join(cpu_flags())}"


def _own_sources() -> Iterator[tuple[str, bytes]]:
    """What a step runs: the `components` package. The pipelines' own shape is in KFP's key already."""
    import components

    root = Path(components.__file__ or "").parent
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".j2"):
            yield path.relative_to(root).as_posix(), path.read_bytes()
