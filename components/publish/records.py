"""What a publisher writes and a deployment reads: the manifest of a version and the pointer to the one in use."""

from typing import Any

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import Runtime, Task

MANIFEST = "manifest.json"
PRODUCTION = "production.json"
VERSIONS = "versions"


class PublishedFile(Contract):
    """One file of a version."""

    path: str = Field(description="relative to the version's folder")
    sha256: str
    size_bytes: int


class VersionManifest(Contract):
    """Everything that belongs to a version; written last, and never changed."""

    format: int = 1
    name: str
    version: str = Field(description="first 16 digits of `content_sha256`; name of the version's folder")
    content_sha256: str = Field(description="over what is served: model files, serving configuration, labels, options")
    task: Task
    runtime: Runtime
    techniques: list[str]
    labels: dict[int, str] = Field(description="label id -> class name")
    options: dict[str, Any] = Field(description="settings that the runtime needs")
    model: str = Field(description="path of the model file")
    model_card: str = Field(description="path of the model card")
    report: str = Field(description="path of the folder with the report of the run that published the version")
    engine: dict[str, Any] | None = Field(
        default=None, description="of an engine: what built it, for which GPUs, from which ONNX file, and `gpu`"
    )
    fallback: str | None = Field(default=None, description="of an engine: path of the ONNX file that it was built from")
    files: list[PublishedFile] = Field(description="every file of the version but this one")


class Release(Contract):
    """A version that is or was in production."""

    version: str
    manifest_sha256: str
    withdrawn: bool = Field(
        default=False, description="taken out of production by a rollback; retraining never promotes it again"
    )


class Production(Contract):
    """The pointer `production.json`: one small object that is only ever replaced as a whole."""

    version: str
    manifest_sha256: str = Field(description="of the version's manifest.json, which has the hash of every file")
    previous: str | None = Field(description="the version that was in production before")
    history: list[Release] = Field(description="all releases before this one, newest first")

    @property
    def withdrawn(self) -> set[str]:
        """Versions whose last time in production a rollback ended."""
        last: dict[str, bool] = {}
        for release in self.history:
            last.setdefault(release.version, release.withdrawn)
        return {version for version, withdrawn in last.items() if withdrawn} - {self.version}

    def after(self, release: Release, *, withdrawing: bool = False) -> "Production":
        """The pointer that follows this one.

        Args:
            release: goes into production.
            withdrawing: whether the release before it is taken back.
        """
        current = Release(version=self.version, manifest_sha256=self.manifest_sha256, withdrawn=withdrawing)
        return Production(
            version=release.version,
            manifest_sha256=release.manifest_sha256,
            previous=self.version,
            history=[current, *self.history],
        )
