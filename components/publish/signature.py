"""Inputs and outputs of a model file, read without the runtime that executes it."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

from components.core import onnx_wire
from components.core.contracts.job import Task
from components.core.errors import StepError
from components.core.tasks.detection import MAX_DETECTIONS

_ONNX_TYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16",
    11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip
_OPENVINO_TYPES = {
    "FP32": "FP32", "FP16": "FP16", "BF16": "BF16", "FP64": "FP64", "I64": "INT64", "I32": "INT32", "I16": "INT16",
    "I8": "INT8", "U8": "UINT8", "U16": "UINT16", "U32": "UINT32", "U64": "UINT64", "BOOL": "BOOL", "BOOLEAN": "BOOL",
}  # fmt: skip


class Tensor(NamedTuple):
    """An input or output."""

    name: str
    kind: str
    """Element type in the words of Triton, for instance `FP32`."""
    shape: tuple[int, ...]
    """-1 where the size is not fixed."""


class Signature(NamedTuple):
    """What a client sends and gets."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_signature(model: Path, task: Task, input_shape: tuple[int, ...]) -> Signature:
    """Reads an ONNX or OpenVINO file; of an engine, which only its runtime can read, the ONNX file beside it.

    Args:
        model: `.onnx`, `.xml` or an engine.
        task: what the model does; a detector's engine is known without its ONNX file.
        input_shape: of the job's target.

    Raises:
        StepError: the file has a type that no server takes, or is damaged.
    """
    if model.suffix == ".onnx":
        return Signature(*(tuple(map(_from_onnx, values)) for values in onnx_wire.signature(model)))
    if model.suffix == ".xml":
        return _from_openvino(model)
    if task is not Task.DETECTION:
        beside = sorted(model.parent.glob("*.onnx"))
        if len(beside) != 1:
            raise StepError(f"{model}: beside the engine are {len(beside)} ONNX files; its own one is needed")
        return read_signature(beside[0], task, input_shape)
    image = Tensor("image", "FP32", input_shape)
    shape = (MAX_DETECTIONS,) if input_shape[0] == 1 else (input_shape[0], MAX_DETECTIONS)
    outputs = Tensor("boxes", "FP32", (*shape, 4)), Tensor("scores", "FP32", shape), Tensor("labels", "INT64", shape)
    return Signature((image,), outputs)


def _from_onnx(value: onnx_wire.TensorInfo) -> Tensor:
    if value.elem_type not in _ONNX_TYPES:
        raise StepError(f"{value.name!r} has the ONNX element type {value.elem_type}, which no server takes")
    return Tensor(value.name, _ONNX_TYPES[value.elem_type], value.shape)


def _from_openvino(model: Path) -> Signature:
    try:
        layers = ET.parse(model).getroot().findall("layers/layer")  # noqa: S314  (written by a step of this run)
        inputs = [_port(layer, "output", "names") for layer in layers if layer.get("type") == "Parameter"]
        outputs = [_port(layer, "input", "output_names") for layer in layers if layer.get("type") == "Result"]
    except (ET.ParseError, KeyError, ValueError) as error:
        raise StepError(f"{model} is no OpenVINO model that can be read: {error}") from error
    return Signature(tuple(inputs), tuple(outputs))


def _port(layer: ET.Element, side: str, names: str) -> Tensor:
    port = layer.find(f"{side}/port")
    if port is None:
        raise ValueError(f"layer {layer.get('name')} has no port")
    given = port.get(names) or layer.get(names) or layer.get("name", "").removesuffix("/sink_port_0")
    shape = tuple(int(dimension.text or -1) for dimension in port.findall("dim"))
    return Tensor(given.split(",")[0], _OPENVINO_TYPES[port.get("precision", "")], shape)
