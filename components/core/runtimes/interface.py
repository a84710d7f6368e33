"""The one interface behind which runtimes hide: load a variant, run a batch, get predictions."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Protocol

from components.core.contracts.job import Job, Runtime
from components.core.contracts.run_plan import RUN_PLAN
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.feeds import Batch
from components.core.tasks.adapter import TaskAdapter, task_adapter

_PACKAGES = {
    Runtime.TORCH: ("torch",),
    Runtime.ONNXRUNTIME: ("onnxruntime",),
    Runtime.OPENVINO: ("openvino",),
    Runtime.TENSORRT: ("tensorrt", "torch"),
    Runtime.TENSORRT_RTX: ("tensorrt_rtx", "torch"),
}
"""Modules that a runtime needs; the extra that installs them is named as the runtime."""
_EXTRAS = {Runtime.TORCH: "export"}
_ON_GPU = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)


class Session(Protocol):
    """A model that was loaded for one runtime."""

    def run(self, batch: Batch) -> list[Any]:
        """A prediction a sample, in terms of the model's input: `Detections` with boxes in its pixels, or logits.

        Raises:
            StepError: the outputs are NaN, infinite or not those of such a model.
        """


class Loader(Protocol):
    """What each runtime's module offers as `load`."""

    def __call__(self, variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> Session:
        """See `load_session`."""


def load_session(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> Session:
    """Loads a variant into its runtime.

    Args:
        variant: what to load, with the options that its runtime needs.
        folder: the manifest's folder, which holds `variant.file`.
        job: for the device and, in torch, the model's factory; None loads a file on its runtime's usual
            device.
        bundle: `fetch`'s folder; torch takes the weights from its `model/`.
        threads: CPU threads of one call.

    Raises:
        StepError: the runtime is not usable here, or refuses the file.
        UserError: the user's model cannot be built.
    """
    device = job.target.device if job else None
    if reason := availability(variant.runtime, device):
        raise StepError(reason)
    if variant.runtime != Runtime.TORCH and (not variant.file or not (folder / variant.file).exists()):
        raise StepError(f"the model file {variant.file or ''} is not in {folder}")
    return _loader(variant)(variant, folder, job, bundle, threads)


def adapter_for(job: Job | None, bundle: Path | None) -> TaskAdapter:
    """The adapter of a session; without a job, a detector's."""
    if job is not None:
        return task_adapter(job, bundle)
    from components.core.tasks.detection_adapter import DetectionAdapter

    return DetectionAdapter()


def output_names(adapter: TaskAdapter, given: list[str]) -> list[str]:
    """Which outputs of a model to ask for: by the task's names; files that other tools made have them in this order.

    Raises:
        StepError: there are too few.
    """
    wanted = list(adapter.outputs)
    if set(wanted) <= set(given):
        return wanted
    if len(given) < len(wanted):
        raise StepError(f"the model has the outputs {', '.join(given)}; expected {', '.join(wanted)}, in this order")
    return given[: len(wanted)]


def _loader(variant: Variant) -> Loader:
    module = {
        Runtime.TORCH: "torch_eager",
        Runtime.ONNXRUNTIME: "onnxruntime",
        Runtime.OPENVINO: "openvino",
        Runtime.TENSORRT: "tensorrt_engine",
        Runtime.TENSORRT_RTX: "tensorrt_engine",
    }[variant.runtime]
    if Path(variant.file or "").name == RUN_PLAN:
        module = "plan"
    load: Loader = importlib.import_module(f"components.core.runtimes.{module}").load
    return load


def availability(runtime: Runtime, device: str | None = None) -> str | None:
    """Why the runtime cannot run a model here, or None where it can.

    Args:
        runtime: the runtime.
        device: also ask whether it can use this `Target.device`; None asks about the machine only.
    """
    from components.core.machine import gpus

    missing = [package for package in _PACKAGES[runtime] if importlib.util.find_spec(package) is None]
    if runtime in _ON_GPU and not gpus():
        return "no GPU"
    if missing:
        extra = _EXTRAS.get(runtime, runtime.value)
        return f"{missing[0]} is not installed (pip install 'hasten[{extra}]')"
    on_cpu = device == "cpu"
    if runtime in _ON_GPU and on_cpu:
        return "target.device is cpu"
    if runtime == Runtime.OPENVINO and device is not None and not on_cpu:
        return f"OpenVINO runs on the CPU and target.device is {device}"
    if device is not None and not on_cpu and not gpus():
        return f"target.device is {device} and there is no GPU"
    return None
