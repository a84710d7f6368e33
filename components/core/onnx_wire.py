"""What a step without the onnx package needs to know of an ONNX file: its external data, its inputs and outputs.

A walk over the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) with the field numbers of
onnx.proto. The file is mapped and not read: weights are skipped, whatever their size.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components.core.errors import UserError
from components.core.files import confined

_MAX_DEPTH = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1

# Message -> field number -> the message in that field; fields that lead to no tensor are left out.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


class TensorInfo(NamedTuple):
    """An input or output of a graph."""

    name: str
    elem_type: int
    """Of `onnx.TensorProto.DataType`: 1 is float32, 7 is int64."""
    shape: tuple[int, ...]
    """-1 where the size is not fixed."""


class _DamagedError(Exception):
    """The bytes are no such message."""


def external_data_files(path: Path) -> list[str]:
    """Locations of the files that hold tensors of the model, relative to its folder, in the order of first use.

    Raises:
        UserError: the file is truncated or no ONNX file, or a location leaves the model's folder.
    """
    try:
        content = _mapped(path)
        _messages(content, 7, at_least=1)
        found = list(dict.fromkeys(_locations(content, "model", 0)))
    except _DamagedError as error:
        raise UserError(_damaged(path, error)) from error
    for location in found:
        confined(path.parent, location, f"{path}: external data")
    return found


def signature(path: Path) -> tuple[list[TensorInfo], list[TensorInfo]]:
    """Inputs and outputs of the model; initializers that are also listed as inputs do not count.

    Raises:
        UserError: the file is truncated or no ONNX file.
    """
    try:
        graph = _messages(_mapped(path), 7, at_least=1)[0]
        weights = {_text(tensor, 8) for tensor in _messages(graph, 5)}
        inputs = [_tensor_info(value) for value in _messages(graph, 11)]
        outputs = [_tensor_info(value) for value in _messages(graph, 12)]
    except _DamagedError as error:
        raise UserError(_damaged(path, error)) from error
    return [value for value in inputs if value.name not in weights], outputs


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is truncated or no ONNX file ({error}); export or copy it again"


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as stream:
        try:
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise _DamagedError("it is empty") from error


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise _DamagedError("subgraphs nested too deep")
    if kind == "tensor":
        yield from _tensor_location(message)
        return
    children = _CHILDREN[kind]
    for number, value in _fields(message):
        if number in children and isinstance(value, memoryview):
            yield from _locations(value, children[number], depth + 1)


def _tensor_location(tensor: memoryview) -> Iterator[str]:
    fields = list(_fields(tensor))
    if (14, _EXTERNAL) not in fields:
        return
    entries = [value for number, value in fields if number == 13 and isinstance(value, memoryview)]
    locations = [_text(entry, 2) for entry in entries if _text(entry, 1) == "location"]
    if not locations:
        raise _DamagedError(f"tensor {_text(tensor, 8)!a} is external and says not where")
    yield from locations


def _tensor_info(value: memoryview) -> TensorInfo:
    tensor = _message(_message(value, 2), 1)
    sizes = tuple(_number(dimension, 1, default=-1) for dimension in _messages(_message(tensor, 2), 1))
    return TensorInfo(_text(value, 1), _number(tensor, 1, default=0), sizes)


def _messages(message: memoryview, field: int, at_least: int = 0) -> list[memoryview]:
    found = [value for number, value in _fields(message) if number == field and isinstance(value, memoryview)]
    if len(found) < at_least:
        raise _DamagedError("it has no graph")
    return found


def _message(message: memoryview, field: int) -> memoryview:
    return next(iter(_messages(message, field)), memoryview(b""))


def _text(message: memoryview, field: int) -> str:
    found = _messages(message, field)
    return bytes(found[-1]).decode("utf-8", "surrogateescape") if found else ""


def _number(message: memoryview, field: int, default: int) -> int:
    return next((value for number, value in _fields(message) if number == field and isinstance(value, int)), default)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers with their values: integers, or the bytes of strings, messages and packed arrays."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _DamagedError(f"byte {at} is no protobuf")
        if tag >> 3 == 0 or length > end - at:
            raise _DamagedError("it breaks off" if tag >> 3 else f"byte {at} is no protobuf")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _DamagedError("it breaks off")
