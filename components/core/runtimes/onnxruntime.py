"""ONNX Runtime on the CPU, or on the GPU where the target is one."""

from pathlib import Path
from typing import Any

from components.core.contracts.job import Job
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.feeds import Batch, feed, size_of
from components.core.runtimes.interface import adapter_for, output_names
from components.core.tasks.adapter import TaskAdapter

_ERRORS_ONLY = 3


class OnnxRuntimeSession:
    """An `InferenceSession` of a model of some task."""

    def __init__(self, session: Any, adapter: TaskAdapter) -> None:
        self._session = session
        self._adapter = adapter
        self._inputs = [given.name for given in session.get_inputs()]
        self._outputs = output_names(adapter, [output.name for output in session.get_outputs()])

    def run(self, batch: Batch) -> list[Any]:
        """See `Session.run`."""
        found = self._session.run(self._outputs, feed(batch, self._inputs))
        return self._adapter.predictions(size_of(batch), found)


def load(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> OnnxRuntimeSession:
    """See `load_session`.

    `variant.options`: `graph_optimization_level` (``all``, ``extended``, ``basic``, ``disable``); every key with a dot
    is a session configuration entry, for instance ``session.intra_op.allow_spinning``.

    Raises:
        StepError: an unknown option, no GPU provider where one is needed, or ONNX Runtime refuses the file.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = _ERRORS_ONLY
    levels = ort.GraphOptimizationLevel
    named_levels = {
        "all": levels.ORT_ENABLE_ALL,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "basic": levels.ORT_ENABLE_BASIC,
        "disable": levels.ORT_DISABLE_ALL,
    }
    for key, value in variant.options.items():
        if key == "graph_optimization_level" and value in named_levels:
            settings.graph_optimization_level = named_levels[value]
        elif "." in key:
            settings.add_session_config_entry(key, str(value))
        else:
            raise StepError(f"{variant.id}: ONNX Runtime has no option {key}={value!r}")
    device = job.target.device if job else "cpu"
    providers = _providers(device, ort.get_available_providers())
    try:
        session = ort.InferenceSession(str(folder / str(variant.file)), settings, providers=providers)
    except Exception as error:
        raise StepError(f"ONNX Runtime refuses {variant.file}: {' '.join(str(error).split())}") from error
    return OnnxRuntimeSession(session, adapter_for(job, bundle))


def _providers(device: str, available: list[str]) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        raise StepError(
            f"target.device is {device} and this ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)"
        )
    index = device.partition(":")[2] or "0"
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]
