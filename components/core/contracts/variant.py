"""What the steps of `compress` hand to one another: a folder with model files and a `manifest.json` that lists them."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import Runtime, Task

MANIFEST = "manifest.json"
SOURCES = "sources"
"""Folder in `export`'s output whose manifest lists the models that surgery starts from; the manifest above it lists the
untouched model, as the user runs it and in FP32 runtimes."""


class Status(StrEnum):
    """What became of a candidate."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Variant(Contract):
    """One model, for one runtime, on its way to becoming a candidate."""

    id: str = Field(description="unique in a run, for instance `int8-openvino`")
    runtime: Runtime
    techniques: list[str] = Field(description="what was done to the user's model, in order")
    status: Status = Status.OK
    reason: str = Field(default="", description="why it failed or was skipped, or what is worth knowing, for a person")
    file: str | None = Field(default=None, description="model file, relative to the manifest's folder")
    reference: bool = Field(default=False, description="a yardstick (the untouched model), never the winner")
    options: dict[str, Any] = Field(default_factory=dict, description="settings of the runtime, e.g. precision hints")
    details: dict[str, Any] = Field(
        default_factory=dict, description="numbers for the report, e.g. parity or engine card"
    )


class Manifest(Contract):
    """The list of variants in a step's output folder."""

    task: Task
    input_shape: tuple[int, ...] = Field(description="of the job's target, for instance [N, 3, H, W] in pixels")
    labels: dict[int, str] = Field(default_factory=dict, description="label id -> class name")
    variants: list[Variant]

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Reads `manifest.json` of a step's output folder."""
        return Manifest.model_validate_json((folder / MANIFEST).read_text())

    def write(self, folder: Path) -> None:
        """Writes `manifest.json`; written last, so that a folder with a manifest is whole."""
        folder.mkdir(parents=True, exist_ok=True)  # nothing else is in it when no variant has a file
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2))
