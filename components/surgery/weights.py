"""Large weights, kept apart from the graph that they belong to.

A *skeleton* is a model whose large tensors are references into a `Weights` store, in ONNX's own form of external data.
It is small whatever the model weighs, so that copies, shape inference and ONNX Runtime sessions of it are cheap. The
store gives the values as arrays without copying them: weights in files are mapped, so that each page is in memory
once, however many sessions read it.
"""

import math
import mmap
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import Message
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from onnx_graphsurgeon.ir.tensor import LazyValues

from components.core.onnx_files import BYTES, tensors_of

SMALL = 1024
"""Elements up to which a tensor stays in the graph: shapes, scales and indices, which surgeries look at."""
_LOCATION = "hasten"
"""External data of a skeleton lies in "files" of this name, which are never written."""


@dataclass(frozen=True)
class _Slice:
    """Values in a file: ``length`` bytes from ``offset``."""

    path: Path
    offset: int
    length: int


class Weights:
    """The values of a skeleton's references."""

    def __init__(self) -> None:
        self.streamed = False
        """Whether some of it is in files."""
        self._sources: list[_Slice | onnx.TensorProto | np.ndarray | None] = []
        self._arrays: dict[int, np.ndarray] = {}
        self._keys: dict[int, int] = {}
        self._files: dict[Path, np.ndarray] = {}

    def hold(self, tensor: onnx.TensorProto, folder: Path | None = None) -> onnx.TensorProto:
        """Keeps the values of a tensor.

        Args:
            tensor: with its data in it, or in a file of `folder`.
            folder: of the external data.

        Returns:
            The reference that takes its place.
        """
        if not uses_external_data(tensor):
            return self._reference(tensor.name, tensor.data_type, tensor.dims, tensor)
        if folder is None:
            raise ValueError(f"tensor {tensor.name!r} has external data of no known folder")
        info = ExternalDataInfo(tensor)
        length = math.prod(tensor.dims) * BYTES[tensor.data_type]
        source = _Slice(folder / info.location, info.offset or 0, length)
        self.streamed = True
        return self._reference(tensor.name, tensor.data_type, tensor.dims, source)

    def add(self, name: str, array: np.ndarray) -> onnx.TensorProto:
        """Keeps an array; the reference to it."""
        key = self._keys.get(id(array))
        if key is not None:
            return _proto(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, key, array.nbytes)
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        reference = self._reference(name, kind, array.shape, array)
        self._remember(len(self._sources) - 1, array)
        return reference

    def array(self, reference: onnx.TensorProto) -> np.ndarray:
        """The values of a reference; not to be written to."""
        key = _key(reference)
        if key not in self._arrays:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(reference.data_type)
            self._remember(key, self._load(self._sources[key], dtype).reshape(tuple(reference.dims)))
        return self._arrays[key]

    def keep(self, skeleton: onnx.ModelProto) -> None:
        """Forgets arrays that the skeleton does not refer to, and what was made of them."""
        used = {_key(tensor) for tensor in tensors_of(skeleton) if is_reference(tensor)}
        for key, source in enumerate(self._sources):
            # What came with the model stays: it is asked for again at the end, and is in memory or in a file anyway.
            if key not in used and isinstance(source, np.ndarray):
                self._sources[key] = None
                self._keys.pop(id(source))
                self._arrays.pop(key)

    def _reference(
        self, name: str, kind: int, shape: "tuple[int, ...]", source: _Slice | onnx.TensorProto | np.ndarray
    ) -> onnx.TensorProto:
        self._sources.append(source)
        size = math.prod(shape) * BYTES[kind]
        return _proto(name, kind, shape, len(self._sources) - 1, size)

    def _remember(self, key: int, array: np.ndarray) -> None:
        self._arrays[key] = array
        self._keys[id(array)] = key

    def _load(self, source: _Slice | onnx.TensorProto | np.ndarray | None, dtype: np.dtype) -> np.ndarray:
        if isinstance(source, np.ndarray):
            return source
        if isinstance(source, onnx.TensorProto):
            values: np.ndarray = (
                np.frombuffer(source.raw_data, dtype)
                if source.HasField("raw_data")
                else onnx.numpy_helper.to_array(source)
            )
            return values
        if source is None:
            raise ValueError("these weights were given up")
        if source.length == 0:
            return np.empty(0, dtype)
        if source.path not in self._files:
            with source.path.open("rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._files[source.path] = np.frombuffer(mapped, np.uint8)
        values = self._files[source.path][source.offset : source.offset + source.length].view(dtype)
        return values if source.offset % dtype.itemsize == 0 else values.copy()


class StoredValues(LazyValues):  # type: ignore[misc]
    """Values of a graph's constant that are read from the store when something asks for them."""

    def __init__(self, tensor: onnx.TensorProto, weights: Weights) -> None:
        super().__init__(tensor)
        self.weights = weights

    def load(self) -> np.ndarray:
        """The store's own array."""
        return self.weights.array(self.tensor)


def is_reference(tensor: onnx.TensorProto) -> bool:
    """Whether the values are in a store."""
    return uses_external_data(tensor) and ExternalDataInfo(tensor).location == _LOCATION


def is_large(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor that is not in a store belongs there."""
    if tensor.data_type not in BYTES or is_reference(tensor):
        return False
    return uses_external_data(tensor) or math.prod(tensor.dims) > SMALL


def set_aside(
    model: onnx.ModelProto, weights: Weights | None = None, folder: Path | None = None
) -> tuple[onnx.ModelProto, Weights]:
    """The model as a skeleton and its weights; the given model stays as it is.

    Args:
        model: the model.
        weights: store to add to; default: a new one.
        folder: of the model's external data, where it has some.
    """
    weights = Weights() if weights is None else weights
    skeleton = onnx.ModelProto()
    copy_but(model, skeleton, ["graph"])
    copy_but(model.graph, skeleton.graph, ["initializer"])
    skeleton.graph.initializer.extend(
        weights.hold(tensor, folder) if is_large(tensor) else tensor for tensor in model.graph.initializer
    )
    # Tensors of Constant nodes and of bodies are rarely large: they were copied with their nodes.
    for tensor in tensors_of(skeleton):
        if is_large(tensor):
            whole = onnx.TensorProto()
            whole.CopyFrom(tensor)
            tensor.CopyFrom(weights.hold(whole, folder))
    return skeleton, weights


def restore(skeleton: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """The skeleton with all weights in it."""
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    for tensor in tensors_of(model):
        if is_reference(tensor):
            inline(tensor, weights)
    return model


def inline(tensor: onnx.TensorProto, weights: Weights) -> None:
    """Puts the values of a reference into it."""
    tensor.raw_data = weights.array(tensor).tobytes()
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def stored_values(tensor: onnx.TensorProto, weights: Weights | None) -> LazyValues:
    """The values of a tensor for a graph's constant."""
    return StoredValues(tensor, weights) if weights is not None and is_reference(tensor) else LazyValues(tensor)


def constant_to_proto(constant: gs.Constant, weights: Weights | None) -> onnx.TensorProto:
    """A graph's constant as a tensor: a reference where it is large and there is a store."""
    values = constant._values
    if isinstance(values, np.ndarray):
        if weights is not None and values.size > SMALL and _plain(values, constant):
            return weights.add(constant.name, values)
        tensor: onnx.TensorProto = gs.exporters.onnx_exporter.OnnxExporter.export_tensor_proto(constant)
    else:
        # Not by graphsurgeon, which would rename the tensor of the model that it came from.
        tensor = onnx.TensorProto()
        tensor.CopyFrom(values.tensor)
        tensor.name = constant.name
    if isinstance(values, StoredValues):
        if values.weights is weights:
            return tensor
        inline(tensor, values.weights)
    return weights.hold(tensor) if weights is not None and is_large(tensor) else tensor


def _plain(values: np.ndarray, constant: gs.Constant) -> bool:
    return values.dtype.kind in "fiub" and values.flags.c_contiguous and constant.export_dtype == values.dtype


def copy_but(source: Message, target: Message, left_out: Collection[str]) -> None:
    """Copies all set fields of a protobuf message but some."""
    for field, value in source.ListFields():
        if field.name in left_out:
            continue
        if hasattr(getattr(target, field.name), "MergeFrom"):
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)


def _proto(name: str, kind: int, shape: "tuple[int, ...]", key: int, size: int) -> onnx.TensorProto:
    tensor = onnx.TensorProto(data_type=kind, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    if name:
        tensor.name = name
    for entry, value in (("location", _LOCATION), ("offset", str(key)), ("length", str(size))):
        tensor.external_data.add(key=entry, value=value)
    return tensor


def _key(reference: onnx.TensorProto) -> int:
    return int(ExternalDataInfo(reference).offset or 0)
