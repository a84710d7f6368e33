"""OpenVINO on the CPU, from an ONNX file or its own IR."""

from pathlib import Path
from typing import Any

from components.core.contracts.job import Job
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.runtimes.interface import Batch
from components.core.runtimes.openvino_core import shared_core
from components.core.tasks.detection import Detections, per_image

OUTPUTS = ("boxes", "scores", "labels")


class OpenVinoSession:
    """A compiled model with outputs `boxes`, `scores` and `labels`."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        named = {name: port for port in compiled.outputs for name in port.get_names()}
        in_order = list(compiled.outputs)[: len(OUTPUTS)]
        self._outputs = [named[name] for name in OUTPUTS] if set(OUTPUTS) <= set(named) else in_order

    def run(self, batch: Batch) -> list[Detections]:
        """See `Session.run`."""
        # Shared, not copied: the batch outlives the call, and per_image copies what it keeps.
        results = self._request.infer({0: batch}, share_inputs=True, share_outputs=True)
        return per_image(len(batch), *(results[port] for port in self._outputs))


def load(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> OpenVinoSession:  # noqa: ARG001
    """See `load_session`. `variant.options` are OpenVINO properties, for instance ``INFERENCE_PRECISION_HINT``.

    Raises:
        StepError: OpenVINO refuses the file or an option.
    """
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        # On processors with AVX512-BF16 or AMX, OpenVINO would silently compute FP32 models in BF16.
        "INFERENCE_PRECISION_HINT": "f32",
    } | {key: str(value) for key, value in variant.options.items()}
    try:
        core = shared_core()
        compiled = core.compile_model(core.read_model(folder / str(variant.file)), "CPU", properties)
    except Exception as error:
        raise StepError(f"OpenVINO refuses {variant.file}: {' '.join(str(error).split())}") from error
    return OpenVinoSession(compiled)
