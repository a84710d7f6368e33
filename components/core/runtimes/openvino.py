"""OpenVINO on the CPU, from an ONNX file or its own IR."""

from pathlib import Path
from typing import Any

from components.core.contracts.job import Job
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.feeds import Batch, feed, size_of
from components.core.runtimes.interface import adapter_for, output_names
from components.core.runtimes.openvino_core import input_names, shared_core
from components.core.tasks.adapter import TaskAdapter


class OpenVinoSession:
    """A compiled model of some task."""

    def __init__(self, compiled: Any, adapter: TaskAdapter) -> None:
        self._request = compiled.create_infer_request()
        self._adapter = adapter
        self._inputs = input_names(compiled)
        named = {name: port for port in compiled.outputs for name in port.get_names()}
        if set(adapter.outputs) <= set(named):
            self._outputs = [named[name] for name in adapter.outputs]
        else:
            numbers = [str(number) for number in range(len(compiled.outputs))]
            self._outputs = [compiled.outputs[int(number)] for number in output_names(adapter, numbers)]

    def run(self, batch: Batch) -> list[Any]:
        """See `Session.run`."""
        values = feed(batch, self._inputs)
        in_order = {number: values[name] for number, name in enumerate(self._inputs)}
        # Shared, not copied: the batch outlives the call, and the adapter copies what it keeps.
        results = self._request.infer(in_order, share_inputs=True, share_outputs=True)
        return self._adapter.predictions(size_of(batch), [results[port] for port in self._outputs])


def load(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> OpenVinoSession:
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
    return OpenVinoSession(compiled, adapter_for(job, bundle))
