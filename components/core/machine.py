"""What this machine is: processor, memory, GPUs, versions. Nothing heavy is imported to find out."""

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

CPU_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
)
"""Instruction sets that decide whether INT8, BF16 or FP16 can be faster than FP32."""
PACKAGES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "faster-coco-eval",
    "numpy",
    "pillow",
)
_QUERY_SECONDS = 10


class Gpu(NamedTuple):
    """One NVIDIA GPU as `nvidia-smi` lists it."""

    name: str
    memory_mib: int
    driver: str
    compute_capability: str


def describe() -> dict[str, str]:
    """Facts that a measurement depends on, for `Leaderboard.environment`."""
    facts = {
        "cpu": cpu_model(),
        "cores": str(usable_cores()),
        "cpu_flags": " ".join(cpu_flags()),
        "memory": f"{memory_bytes() / 2**30:.1f} GiB",
        "gpu": ", ".join(gpu.name for gpu in gpus()) or "none",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }
    return facts | package_versions()


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of `PACKAGES`; a package that is not installed has no entry."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def cpu_model() -> str:
    """Processor as the system names it."""
    for key in ("model name", "Model", "Hardware"):
        if value := _cpuinfo().get(key):
            return value
    return platform.processor() or platform.machine() or "unknown"


@cache
def cpu_flags() -> tuple[str, ...]:
    """Those of `CPU_FLAGS` that this processor has."""
    present = (_cpuinfo().get("flags") or _cpuinfo().get("Features") or "").split()
    return tuple(flag for flag in CPU_FLAGS if flag in present)


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def usable_cores() -> int:
    """Cores that this process may use: its CPU affinity, and its container's CPU limit rounded up; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cgroup_cores(Path("/sys/fs/cgroup"))
    return max(min(allowed, limit if limit else allowed), 1)


def _cgroup_cores(root: Path) -> int | None:
    """CPU limit of the container (cgroup v2 or v1) in whole cores, rounded up; None where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return max(-(-int(quota) // int(period)), 1)


def memory_bytes() -> int:
    """Physical memory."""
    import psutil

    return int(psutil.virtual_memory().total)


@cache
def gpus() -> tuple[Gpu, ...]:
    """NVIDIA GPUs that `nvidia-smi` lists; none where there is no driver."""
    fields = "name,memory.total,driver_version,compute_cap"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(listing: str) -> tuple[Gpu, ...]:
    """Reads the CSV lines of `nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap`."""
    rows = ([field.strip() for field in line.split(",")] for line in listing.splitlines())
    return tuple(
        Gpu(name, int(memory) if memory.isdigit() else 0, driver, capability)
        for name, memory, driver, capability in (row for row in rows if len(row) == 4)
    )
