"""What this machine can build, run and time, found out without importing anything heavy."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from components.core.contracts.job import Runtime
from components.core.machine import cpu_flags, describe, gpus
from components.core.precision import has_int8_dot_product, has_native_bfloat16
from components.core.runtimes.interface import availability

_MIN_FREE_BYTES = 5e9


class Answer(BaseModel):
    """Whether something can be done here, and why (not)."""

    ok: bool
    why: str = ""


class RuntimeReport(BaseModel):
    """What can be done for one runtime."""

    runtime: Runtime
    version: str | None = Field(description="of its package; null where it is not installed")
    build: Answer = Field(description="make a model for it: convert, quantize, compile an engine")
    run: Answer = Field(description="run such a model; what runs is timed too")


class StepReport(BaseModel):
    """Whether one step can work here."""

    step: str
    works: Answer


class Report(BaseModel):
    """What `hasten doctor` says."""

    machine: dict[str, str]
    notes: list[str] = Field(description="what the machine's properties mean for the results")
    runtimes: list[RuntimeReport]
    steps: list[StepReport]


_STEP_MODULES = {
    "fetch": ("boto3", "PIL"),
    "export": ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "safetensors"),
    "surgery": ("onnx", "onnx_graphsurgeon", "onnxruntime"),
    "int8 (openvino)": ("openvino", "nncf"),
    "int8 (onnxruntime, tensorrt)": ("onnx", "onnxruntime"),
    "fp16": ("onnx",),
    "benchmark": ("faster_coco_eval",),
    "report": ("jinja2", "matplotlib"),
    "publish": ("boto3",),
    "the ladder": ("kfp",),
}
_STEP_EXTRA = {
    "export": "export",
    "surgery": "surgery",
    "int8 (openvino)": "openvino",
    "int8 (onnxruntime, tensorrt)": "onnxruntime",
    "fp16": "surgery",
    "benchmark": "benchmark",
    "report": "report",
}
_PACKAGES = {
    Runtime.TORCH: ("torch",),
    Runtime.ONNXRUNTIME: ("onnxruntime", "onnxruntime-gpu"),
    Runtime.OPENVINO: ("openvino",),
    Runtime.TENSORRT: ("tensorrt",),
    Runtime.TENSORRT_RTX: ("tensorrt-rtx-cu13", "tensorrt-rtx"),
}


def examine(cache: Path) -> Report:
    """Looks at the machine.

    Args:
        cache: folder of the step cache; its disk is looked at.
    """
    return Report(
        machine=describe() | {"free_disk": f"{_free_bytes(cache) / 1e9:.1f} GB ({cache})"},
        notes=_notes(cache),
        runtimes=[_examine_runtime(runtime) for runtime in Runtime],
        steps=[
            StepReport(step=step, works=_needs(modules, _STEP_EXTRA.get(step)))
            for step, modules in _STEP_MODULES.items()
        ],
    )


def _examine_runtime(runtime: Runtime) -> RuntimeReport:
    reason = availability(runtime)
    return RuntimeReport(
        runtime=runtime,
        version=_version(_PACKAGES[runtime]),
        build=_BUILDERS[runtime](),
        run=Answer(ok=reason is None, why=reason or _run_note(runtime)),
    )


def _run_note(runtime: Runtime) -> str:
    return "the baseline, as the user runs it" if runtime is Runtime.TORCH else ""


def _build_engine(module: str, extra: str) -> Callable[[], Answer]:
    def answer() -> Answer:
        needed = _needs((module, "onnx"), extra)
        if not needed.ok:
            return needed
        if module == "tensorrt" and not gpus():
            return Answer(ok=False, why="no GPU: TensorRT builds an engine on the GPU that will run it")
        return Answer(ok=True)

    return answer


_BUILDERS: dict[Runtime, Callable[[], Answer]] = {
    Runtime.TORCH: lambda: _needs(("torch", "torchvision"), "export"),
    Runtime.ONNXRUNTIME: lambda: _needs(("onnx", "onnxruntime"), "onnxruntime"),
    Runtime.OPENVINO: lambda: _needs(("openvino", "nncf"), "openvino"),
    Runtime.TENSORRT: _build_engine("tensorrt", "tensorrt"),
    Runtime.TENSORRT_RTX: _build_engine("tensorrt_rtx", "tensorrt-rtx"),
}


def _needs(modules: Sequence[str], extra: str | None) -> Answer:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if not missing:
        return Answer(ok=True)
    install = f"hasten[{extra}]" if extra else "hasten"
    return Answer(ok=False, why=f"{', '.join(missing)} not installed: pip install '{install}'")


def _version(packages: Sequence[str]) -> str | None:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _free_bytes(folder: Path) -> float:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _notes(cache: Path) -> list[str]:
    flags = cpu_flags()
    notes = []
    if not has_int8_dot_product(flags):
        notes.append("no INT8 dot product on this processor (VNNI, AMX, dotprod): INT8 gains less here than elsewhere")
    if not has_native_bfloat16(flags):
        notes.append("no native bfloat16: half precision is not faster than FP32 on this CPU")
    if not gpus():
        notes.append("no GPU: TensorRT engines are not timed, and no number is made up for them")
    if _free_bytes(cache) < _MIN_FREE_BYTES:
        notes.append(f"less than {_MIN_FREE_BYTES / 1e9:.0f} GB free for the step cache in {cache}")
    if not _has_s3_credentials():
        notes.append("no S3 credentials in the environment or ~/.aws: only local files can be read and published")
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        notes.append("Python 3.11 to 3.13 is supported")
    return notes


def _has_s3_credentials() -> bool:
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return True
    given = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return Path(given).exists() if given else (Path.home() / ".aws" / "credentials").exists()
