"""Any model on the CPU, arrays in and arrays out: for models that are no task of hasten's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from components.core.contracts.job import Runtime
from components.core.errors import StepError
from components.core.feeds import Feed

Call = Callable[[Feed], list[npt.NDArray[Any]]]
_ERRORS_ONLY = 3


def load_tensors(runtime: Runtime, file: Path, threads: int, options: Mapping[str, Any] | None = None) -> Call:
    """Loads a file and gives what calls it.

    Args:
        runtime: ONNX Runtime (`.onnx`) or OpenVINO (`.onnx`, `.xml`).
        file: the model.
        threads: CPU threads of one call.
        options: OpenVINO properties, for instance ``INFERENCE_PRECISION_HINT``; session entries of ONNX Runtime.

    Raises:
        StepError: the runtime refuses the file, or is another one.
    """
    if runtime is Runtime.OPENVINO:
        return _openvino(file, threads, options or {})
    if runtime is Runtime.ONNXRUNTIME:
        return _onnxruntime(file, threads, options or {})
    raise StepError(f"{file.name}: {runtime} does not run plain arrays on the CPU; accepted: onnxruntime, openvino")


def _openvino(file: Path, threads: int, options: Mapping[str, Any]) -> Call:
    from components.core.runtimes.openvino_core import shared_core

    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
    } | {key: str(value) for key, value in options.items()}
    try:
        core = shared_core()
        compiled = core.compile_model(core.read_model(file), "CPU", properties)
    except Exception as error:
        raise StepError(f"OpenVINO refuses {file.name}: {' '.join(str(error).split())}") from error
    request = compiled.create_infer_request()
    outputs = list(compiled.outputs)

    def call(feed: Feed) -> list[npt.NDArray[Any]]:
        found = request.infer(feed, share_inputs=True, share_outputs=True)
        return [found[port] for port in outputs]

    return call


def _onnxruntime(file: Path, threads: int, options: Mapping[str, Any]) -> Call:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _ERRORS_ONLY
    for key, value in options.items():
        settings.add_session_config_entry(key, str(value))
    try:
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise StepError(f"ONNX Runtime refuses {file.name}: {' '.join(str(error).split())}") from error

    def call(feed: Feed) -> list[npt.NDArray[Any]]:
        found: list[npt.NDArray[Any]] = session.run(None, feed)
        return found

    return call
