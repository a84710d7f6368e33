"""Reads and writes ONNX files; a damaged, unsafe or unknown one is refused with one line.

`load_onnx` and `load_graph`, which leaves large weights in their files, are the only doors through which an ONNX file
of a user comes in. They never follow external data out of the model's folder, and they name the first node that no
runtime could know.
"""

import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

from components.core.errors import UserError
from components.core.files import shortened, unsafe_path
from components.core.onnx_cycles import find_cycle

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "trt.plugins", "TRT"})
"""Operator domains that at least one runtime or surgery knows; standard ones are also checked by operator name."""
NEWEST_IR = onnx.IR_VERSION
_CHECKED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_PLUGIN_OPS = frozenset({"EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "ROIAlign_TRT"})
"""TensorRT plugins that exporters write into the standard domain."""
_PROTOBUF_LIMIT = 2**31 - 2**20
"""Bytes; above it (2 GiB less a margin) the weights go into a file of their own."""
_MAX_ELEMENTS = 2**40
_ALIGNMENT = 4096
"""Bytes that external data of a tensor begins at a multiple of, where it is written here."""
BYTES = {
    getattr(onnx.TensorProto, name): size
    for size, names in (
        (1, ("INT8", "UINT8", "BOOL")),
        (2, ("INT16", "UINT16", "FLOAT16", "BFLOAT16")),
        (4, ("INT32", "UINT32", "FLOAT")),
        (8, ("INT64", "UINT64", "DOUBLE", "COMPLEX64")),
        (16, ("COMPLEX128",)),
    )
    for name in names
}
"""Bytes of an element, for types that fill whole bytes."""
_AGAIN = "it is damaged, export or copy it again"


def load_onnx(path: Path, known_domains: Collection[str] = KNOWN_DOMAINS) -> onnx.ModelProto:
    """Reads an ONNX model with its external data.

    Args:
        path: the `.onnx` file; external data must lie in its folder.
        known_domains: operator domains to accept.

    Returns:
        The model, all weights in memory.

    Raises:
        UserError: the file is missing, truncated or no ONNX model, its external data leaves the folder or is missing,
            or it has an operator or a domain that nothing here knows.
    """
    return _load(path, known_domains, everything=True)


def load_graph(path: Path, known_domains: Collection[str] = KNOWN_DOMAINS) -> onnx.ModelProto:
    """Reads an ONNX model and leaves its external data where it is.

    What `load_onnx` checks is checked here too, without reading the data: it is in the model's folder, whole, and of
    the size that the shapes ask for.

    Args:
        path: the `.onnx` file; external data must lie in its folder.
        known_domains: operator domains to accept.

    Returns:
        The model; tensors with external data still refer to files in the folder of `path`.

    Raises:
        UserError: as of `load_onnx`.
    """
    return _load(path, known_domains, everything=False)


def external_bytes(model: onnx.ModelProto) -> int:
    """How many bytes of a model of `load_graph` are in files beside it."""
    return sum(
        math.prod(tensor.dims) * BYTES[tensor.data_type] for tensor in tensors_of(model) if uses_external_data(tensor)
    )


def _load(path: Path, known_domains: Collection[str], *, everything: bool) -> onnx.ModelProto:
    model = _parse(path)
    _check_versions(model, path)
    _check_names(model, path)
    _check_external_data(model, path, everything=everything)
    for tensor in tensors_of(model):
        _check_tensor(tensor, path)
    _check_operators(model, path, known_domains)
    refuse_cycle(model, path)
    return model


def refuse_cycle(model: onnx.ModelProto, path: Path) -> None:
    """Refuses a model with nodes that need what they make themselves.

    Raises:
        UserError: there is such a cycle; it names up to three of its nodes.
    """
    cycle = find_cycle(model.graph)
    if cycle:
        named = [f"{node.op_type} {_called(node)}" for node in cycle[:3]]
        more = f" and {len(cycle) - 3} more" if len(cycle) > 3 else ""
        words = f"{', '.join(named)}{more} form a cycle: each needs what the others make"
        raise _refusal(path, f"{words}; accepted: a graph without cycles; export it again")


def save_onnx(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Writes a model; above 2 GiB the weights go into ``<name>.data`` beside it.

    Returns:
        The files written, the model first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if model.ByteSize() < _PROTOBUF_LIMIT:
        path.write_bytes(model.SerializeToString())
        return [path]
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    onnx.save_model(model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=data.name)
    return [path, data]


def save_streamed(model: onnx.ModelProto, path: Path, values: Callable[[onnx.TensorProto], np.ndarray]) -> list[Path]:
    """Writes a model and, beside it, the data of its external tensors, one after the other.

    Args:
        model: the model; where the data of its external tensors is now does not matter. It is not changed.
        path: of the model; the data goes to ``<name>.data``.
        values: gives the values of an external tensor, the same array where two tensors share them.

    Returns:
        The files written, the model first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(f"{path.name}.data")
    written = onnx.ModelProto()
    written.CopyFrom(model)
    places: dict[int, tuple[np.ndarray, dict[str, str | int]]] = {}
    with data.open("wb") as stream:
        for tensor in tensors_of(written):
            if not uses_external_data(tensor):
                continue
            array = values(tensor)
            # One array may be the values of several tensors.
            if id(array) not in places:
                places[id(array)] = array, _write_aligned(stream, array, data.name)
            del tensor.external_data[:]
            for key, value in places[id(array)][1].items():
                tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(written.SerializeToString())
    return [path, data]


def _write_aligned(stream: BinaryIO, array: np.ndarray, location: str) -> dict[str, str | int]:
    """Writes an array where readers can map it; the entries that say where."""
    stream.write(bytes(-stream.tell() % _ALIGNMENT))
    place: dict[str, str | int] = {"location": location, "offset": stream.tell(), "length": array.nbytes}
    if array.size:
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return place


def _refusal(path: Path, words: str) -> UserError:
    return UserError(f"ONNX file {path.name}: {words}")


def _parse(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"ONNX file {path}: {error.strerror or error}; give the path of an .onnx file") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError) as error:
        raise _refusal(path, f"{len(content)} bytes that are truncated or no ONNX model; {_AGAIN}") from error
    if not model.HasField("graph") or not model.graph.output:
        raise _refusal(path, f"{len(content)} bytes without a graph, truncated or no ONNX model; {_AGAIN}")
    return model


def _check_versions(model: onnx.ModelProto, path: Path) -> None:
    if not 3 <= model.ir_version <= NEWEST_IR:
        raise _refusal(path, f"IR version {model.ir_version}; accepted: 3 to {NEWEST_IR}; export it again")
    standard = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if not standard or not 1 <= max(standard) <= newest:
        given = f"opset {max(standard)}" if standard else "no opset"
        raise _refusal(path, f"{given}; accepted: 7 to {newest}; export it again")


def _check_names(model: onnx.ModelProto, path: Path) -> None:
    """Refuses names that are no valid text, which protobuf gives as bytes."""
    names: list[object] = [tensor.name for tensor in tensors_of(model)]
    for graph in _graphs(model.graph):
        for values in (graph.input, graph.output, graph.value_info):
            names += [value.name for value in values]
        for node in graph.node:
            names += [node.op_type, node.domain, node.name, *node.input, *node.output]
            names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise _refusal(path, f"it has names that are no text; {_AGAIN}")


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    name, shape = f"tensor {shortened(tensor.name)}", list(tensor.dims)
    elements = 1
    for size in shape:
        elements *= size
        if size < 0 or elements > _MAX_ELEMENTS:
            raise _refusal(path, f"{name} has the impossible shape {shape}; {_AGAIN}")
    if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
        raise _refusal(path, f"{name} has the unknown data type {tensor.data_type}; {_AGAIN}")
    stored = _stored_elements(tensor)
    if stored is not None and stored != elements:
        raise _refusal(path, f"{name} of shape {shape} has {stored:g} elements and not {elements}; {_AGAIN}")


def _stored_elements(tensor: onnx.TensorProto) -> float | None:
    """How many elements the tensor's data holds; None for strings and types that are packed below a byte."""
    if tensor.data_type not in BYTES:
        return None
    if uses_external_data(tensor):
        return int(ExternalDataInfo(tensor).length or 0) / BYTES[tensor.data_type]
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data) / BYTES[tensor.data_type]
    field = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
    complex_numbers = tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
    return len(field) / (2 if complex_numbers else 1)


def _check_operators(model: onnx.ModelProto, path: Path, known_domains: Collection[str]) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    functions = {(function.domain, function.name) for function in model.functions}
    for graph in _graphs(model.graph):
        for node in graph.node:
            if (node.domain, node.op_type) not in functions:
                _check_operator(node, opsets, path, known_domains)


def _check_operator(node: onnx.NodeProto, opsets: dict[str, int], path: Path, known_domains: Collection[str]) -> None:
    operator = shortened(node.op_type)
    if node.domain not in known_domains:
        accepted = ", ".join(repr(domain) for domain in sorted(known_domains))
        raise _refusal(
            path,
            f"node {_called(node)} has the operator {operator} of the unknown domain {shortened(node.domain)}; "
            f"accepted domains: {accepted}; export the model with standard operators",
        )
    if node.domain not in _CHECKED_DOMAINS or node.op_type in _PLUGIN_OPS:
        return
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = opsets.get(node.domain, opsets.get(domain, opsets.get("ai.onnx", 1)))
    if not onnx.defs.has(node.op_type, version, domain):
        raise _refusal(
            path,
            f"node {_called(node)} has the unknown operator {operator} (opset {version}); "
            "accepted: the operators of the ONNX standard; export the model without it",
        )


def _called(node: onnx.NodeProto) -> str:
    if node.name:
        return shortened(node.name)
    return f"that makes {shortened(node.output[0])}" if node.output else "without a name"


def _check_external_data(model: onnx.ModelProto, path: Path, *, everything: bool) -> None:
    """Checks all external data and loads it, or only what has no whole bytes an element."""
    checked: set[str] = set()
    for tensor in tensors_of(model):
        if not uses_external_data(tensor):
            continue
        name = f"tensor {shortened(tensor.name)}"
        try:
            info = ExternalDataInfo(tensor)
        except (ValueError, TypeError, AttributeError) as error:
            raise _refusal(path, f"{name} has damaged external data ({error}); {_AGAIN}") from error
        if isinstance(info.location, bytes):  # what protobuf makes of a string that is no UTF-8
            raise _refusal(path, f"{name} has damaged external data (its location is no text); {_AGAIN}")
        source = _external_path(info.location or "", name, path)
        needed, there = (info.offset or 0) + (info.length or 0), source.stat().st_size
        if min(info.offset or 0, info.length or 0) < 0 or needed > there:
            words = f"external data of {name} is truncated: {needed} bytes needed, {there} there; copy it again"
            raise _refusal(path, words)
        if everything or tensor.data_type not in BYTES:
            _read_external_data(tensor, path)
            continue
        if info.location not in checked:
            probe = onnx.TensorProto(name=tensor.name, data_location=onnx.TensorProto.EXTERNAL)
            probe.external_data.add(key="location", value=info.location)
            probe.external_data.add(key="length", value="0")
            _read_external_data(probe, path)
            checked.add(info.location)
        tensor.ClearField("raw_data")
        if info.length is None:
            tensor.external_data.add(key="length", value=str(there - (info.offset or 0)))


def _read_external_data(tensor: onnx.TensorProto, path: Path) -> None:
    try:
        load_external_data_for_tensor(tensor, str(path.parent))
    except Exception as error:  # onnx raises errors of several kinds
        words = " ".join(str(error).split())[:200]
        raise _refusal(path, f"external data of tensor {shortened(tensor.name)} cannot be read: {words}") from error
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def _external_path(location: str, name: str, path: Path) -> Path:
    reason = unsafe_path(location)
    folder = path.parent.resolve()
    source = folder / location if reason is None else folder
    if reason is None and not source.resolve().is_relative_to(folder):
        reason = "leaves the folder through a link"
    if reason:
        raise _refusal(
            path,
            f"the external data {shortened(location)} of {name} {reason}; it must be a file in the model's own folder",
        )
    if not source.is_file():
        raise _refusal(path, f"its external data {shortened(location)} is missing; copy it beside the model")
    return source


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those of its If, Loop and Scan nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(subgraph)


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors with values: of the graph, its bodies, the attributes and the functions."""
    for graph in _graphs(model.graph):
        yield from graph.initializer
        yield from _attribute_tensors(graph.node)
    for function in model.functions:
        yield from _attribute_tensors(function.node)


def _attribute_tensors(nodes: Collection[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
