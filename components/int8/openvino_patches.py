"""Between a model that NNCF quantized and its FP32 original: which inputs of which operations differ, and by what."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.runtimes.openvino_core import shared_core

WEIGHTED_TYPES = (
    "Convolution",
    "GroupConvolution",
    "MatMul",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
)


@dataclass(frozen=True)
class Patch:
    """An input of an operation that quantization changed, and what it was."""

    unit: str
    """Friendly name of the operation."""
    port: Any
    """The input, in the quantized model."""
    exact: Any
    """Output that gives the value without rounding, in the quantized model."""


def operations_by_name(model: Any) -> dict[str, Any]:
    """Friendly name -> operation."""
    return {operation.get_friendly_name(): operation for operation in model.get_ordered_ops()}


def find_patches(original: Any, quantized: Any) -> list[Patch]:
    """Every input that reads a FakeQuantize or changed weights or biases.

    Args:
        original: FP32 model.
        quantized: what NNCF made of a model equal to it; its operations keep their names.
    """
    import openvino

    before = operations_by_name(original)
    found: list[Patch] = []
    for operation in quantized.get_ordered_ops():
        name = operation.get_friendly_name()
        twin = before.get(name)
        if twin is None or twin.get_type_name() != operation.get_type_name():
            continue
        for index, port in enumerate(operation.inputs()):
            source = port.get_source_output()
            constant = constant_of(twin.input_value(index))
            if constant is not None:
                if twin.get_type_name() in WEIGHTED_TYPES and index == 1:
                    replacement = openvino.opset13.constant(constant)
                    found.append(Patch(name, port, replacement.output(0)))
                elif _is_bias(twin, index) and (now := constant_of(source)) is not None:
                    layer = twin.input_value(1 - index).get_node().get_friendly_name()
                    if now.shape == constant.shape and not np.array_equal(now, constant):
                        found.append(Patch(layer, port, openvino.opset13.constant(constant).output(0)))
            elif source.get_node().get_type_name() == "FakeQuantize":
                found.append(Patch(name, port, source.get_node().input_value(0)))
    return found


def _is_bias(operation: Any, index: int) -> bool:
    """Whether the input is what is added to the result of a layer with weights."""
    if operation.get_type_name() != "Add" or operation.get_input_size() != 2:
        return False
    return operation.input_value(1 - index).get_node().get_type_name() in WEIGHTED_TYPES


def constant_of(output: Any) -> npt.NDArray[Any] | None:
    """The numbers of an output that is computed from constants alone; None where it is not."""
    import openvino

    node = output.get_node()
    if node.get_type_name() == "Constant":
        data: npt.NDArray[Any] = np.array(node.data)
        return data
    if not _depends_on_constants_alone(node):
        return None
    model = openvino.Model([openvino.opset13.result(output)], [])
    request = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    value: npt.NDArray[Any] = np.array(request.infer({})[0])
    return value


def _depends_on_constants_alone(node: Any) -> bool:
    waiting, looked_at = [node], 0
    while waiting:
        one = waiting.pop()
        looked_at += 1
        if one.get_type_name() == "Parameter" or looked_at > 50:
            return False
        waiting.extend(port.get_source_output().get_node() for port in one.inputs())
    return True


def restore(patches: Iterable[Patch], units: Collection[str]) -> None:
    """Takes these operations of the quantized model back to floating point, in place."""
    wanted = set(units)
    for patch in patches:
        if patch.unit in wanted:
            patch.port.replace_source_output(patch.exact)
