"""TensorRT engines: one code for the modules `tensorrt` and `tensorrt_rtx`, which share their Python API."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Variant
from components.core.errors import StepError
from components.core.feeds import Batch, feed, size_of
from components.core.runtimes.interface import adapter_for
from components.core.tasks.adapter import TaskAdapter

if TYPE_CHECKING:
    import torch

MODULES = {Runtime.TENSORRT: "tensorrt", Runtime.TENSORRT_RTX: "tensorrt_rtx"}


def deserialize(runtime: Runtime, path: Path) -> tuple[Any, Any]:
    """The module and the engine in a file.

    Raises:
        StepError: the file is no engine of this runtime, version or GPU.
    """
    module = importlib.import_module(MODULES[runtime])
    engine = module.Runtime(module.Logger(module.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise StepError(
            f"{MODULES[runtime]} {module.__version__} refuses the engine {path.name}: built for another "
            "version or GPU; build it again here"
        )
    return module, engine


class EngineSession:
    """An execution context with its buffers on one GPU; shapes are static."""

    def __init__(self, module: Any, engine: Any, device: str, adapter: TaskAdapter) -> None:
        import torch

        self._adapter = adapter
        self._context = engine.create_execution_context()
        if self._context is None:
            raise StepError("the engine has no execution context here: too little GPU memory or another GPU")
        self._engine = engine
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers: dict[str, torch.Tensor] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = torch_dtype(module, engine.get_tensor_dtype(name))
            buffer = torch.empty(tuple(engine.get_tensor_shape(name)), dtype=dtype, device=device)
            self._buffers[name] = buffer
            self._context.set_tensor_address(name, buffer.data_ptr())
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
        if len(inputs) > len(adapter.inputs) or not set(adapter.outputs) <= set(names):
            wanted = ", ".join((*adapter.inputs, *adapter.outputs))
            raise StepError(f"the engine has tensors {', '.join(names)}; expected {wanted}")
        self._inputs = inputs

    def run(self, batch: Batch) -> list[Any]:
        """See `Session.run`. Copies to and from the GPU are part of the call."""
        import torch

        with torch.cuda.stream(self._stream):
            for name, values in feed(batch, self._inputs).items():
                self._buffers[name].copy_(torch.from_numpy(values))
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise StepError("the engine failed to run")
            outputs = [self._buffers[name].cpu() for name in self._adapter.outputs]
        return self._adapter.predictions(size_of(batch), [output.numpy() for output in outputs])


def torch_dtype(module: Any, dtype: Any) -> "torch.dtype":
    """The torch type of an engine's tensor.

    Raises:
        StepError: torch and NumPy have none.
    """
    import torch

    types = module.DataType
    known = {
        types.FLOAT: torch.float32,
        types.HALF: torch.float16,
        types.BF16: torch.bfloat16,
        types.INT32: torch.int32,
        types.INT64: torch.int64,
        types.INT8: torch.int8,
        types.UINT8: torch.uint8,
        types.BOOL: torch.bool,
    }
    if dtype not in known:
        raise StepError(f"the engine has an input or output of type {dtype}, which is not supported")
    return known[dtype]


def load(variant: Variant, folder: Path, job: Job | None, bundle: Path | None, threads: int) -> EngineSession:  # noqa: ARG001
    """See `load_session`. Needs a GPU.

    Raises:
        StepError: the engine does not load on this GPU.
    """
    device = job.target.device if job else "cuda"
    module, engine = deserialize(variant.runtime, folder / str(variant.file))
    return EngineSession(module, engine, device, adapter_for(job, bundle))
