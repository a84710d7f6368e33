"""An engine with any inputs and outputs, whose sizes may change from call to call."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from components.core.errors import StepError
from components.core.runtimes.tensorrt_engine import torch_dtype


class EnginePart:
    """An execution context on one GPU.

    Args:
        module: `tensorrt` or `tensorrt_rtx`.
        engine: deserialized.
        device: torch device.
    """

    def __init__(self, module: Any, engine: Any, device: str) -> None:
        import torch

        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise StepError("the engine has no execution context here: too little GPU memory or another GPU")
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._types = {name: torch_dtype(module, engine.get_tensor_dtype(name)) for name in names}
        inputs = module.TensorIOMode.INPUT
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == inputs]
        self._outputs = [name for name in names if name not in self._inputs]

    def run(self, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name; the copies to and from the GPU are part of the call.

        Raises:
            StepError: the engine does not take these sizes, or fails.
        """
        import torch

        with torch.cuda.stream(self._stream):
            held = {}
            for name in self._inputs:
                held[name] = torch.from_numpy(values[name].copy(order="C")).to(self._device, self._types[name])
                if not self._context.set_input_shape(name, tuple(held[name].shape)):
                    raise StepError(f"the engine does not take {name!r} of shape {list(held[name].shape)}")
            for name in self._outputs:
                shape = tuple(self._context.get_tensor_shape(name))
                held[name] = torch.empty(shape, dtype=self._types[name], device=self._device)
            for name, tensor in held.items():
                self._context.set_tensor_address(name, tensor.data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise StepError("the engine failed to run")
            return {name: held[name].cpu().numpy() for name in self._outputs}
