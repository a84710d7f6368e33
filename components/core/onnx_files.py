"""Reads and writes ONNX files; a damaged, unsafe or unknown one is refused with one line.

`load_onnx` is the only door through which an ONNX file of a user comes in. It never follows external data out of the
model's folder, and it names the first node that no runtime could know.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

from components.core.errors import UserError
from components.core.files import unsafe_path

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "trt.plugins", "TRT"})
"""Operator domains that at least one runtime or surgery knows; standard ones are also checked by operator name."""
NEWEST_IR = onnx.IR_VERSION
_CHECKED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_PLUGIN_OPS = frozenset({"EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "ROIAlign_TRT"})
"""TensorRT plugins that exporters write into the standard domain."""
_PROTOBUF_LIMIT = 2**31 - 2**20
"""Bytes; above it (2 GiB less a margin) the weights go into a file of their own."""
_MAX_TENSOR_BYTES = 2**40


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
    model = _parse(path)
    _load_external_data(model, path)
    _check_structure(model, path)
    _check_operators(model, path, known_domains)
    return model


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


def external_files(path: Path) -> list[Path]:
    """Files that the model at `path` keeps its weights in, beside itself.

    Raises:
        UserError: as `load_onnx`.
    """
    model = _parse(path)
    return sorted({_external_path(tensor, path) for tensor in _tensors(model) if uses_external_data(tensor)})


def _parse(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"ONNX file {path}: {error.strerror or error}; give the path of an .onnx file") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError) as error:
        raise UserError(
            f"ONNX file {path.name} ({len(content)} bytes) is truncated or no ONNX model; export or download it again"
        ) from error
    if not model.HasField("graph") or not model.graph.output:
        raise UserError(
            f"ONNX file {path.name} ({len(content)} bytes) has no graph: truncated or no ONNX model; export it again"
        )
    return model


def _check_structure(model: onnx.ModelProto, path: Path) -> None:
    if not 3 <= model.ir_version <= NEWEST_IR:
        raise UserError(
            f"ONNX file {path.name} has IR version {model.ir_version}; accepted: 3 to {NEWEST_IR}; export it again"
        )
    standard = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if not standard or not 1 <= max(standard) <= newest:
        given = f"opset {max(standard)}" if standard else "no opset"
        raise UserError(f"ONNX file {path.name} has {given}; accepted: 7 to {newest}; export it again")
    for tensor in _tensors(model):
        _check_tensor(tensor, path)


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    elements = 1
    for size in tensor.dims:
        elements *= size
        if size < 0 or elements > _MAX_TENSOR_BYTES:
            raise UserError(
                f"ONNX file {path.name}: tensor {tensor.name!r} has the impossible shape {list(tensor.dims)}"
            )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError):
        raise UserError(
            f"ONNX file {path.name}: tensor {tensor.name!r} has the unknown data type {tensor.data_type}"
        ) from None
    if tensor.raw_data and dtype.itemsize and elements * dtype.itemsize > 2 * len(tensor.raw_data) + 8:
        raise UserError(
            f"ONNX file {path.name}: tensor {tensor.name!r} has {len(tensor.raw_data)} bytes for the shape "
            f"{list(tensor.dims)}; the file is damaged, export it again"
        )


def _check_operators(model: onnx.ModelProto, path: Path, known_domains: Collection[str]) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    functions = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model.graph):
        if (node.domain, node.op_type) in functions:
            continue
        if node.domain not in known_domains:
            raise UserError(
                f"ONNX file {path.name}: node {_name(node)} has the operator {node.op_type} of the unknown domain "
                f"{node.domain!r}; accepted: {', '.join(repr(domain) for domain in sorted(known_domains))}; "
                "export the model with standard operators"
            )
        if node.domain not in _CHECKED_DOMAINS or node.op_type in _PLUGIN_OPS:
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = opsets.get(node.domain, opsets.get(domain, opsets.get("ai.onnx", 1)))
        if not onnx.defs.has(node.op_type, version, domain):
            raise UserError(
                f"ONNX file {path.name}: node {_name(node)} has the unknown operator {node.op_type} "
                f"(opset {version}); accepted: the operators of the ONNX standard; export the model without it"
            )


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    for tensor in _tensors(model):
        if not uses_external_data(tensor):
            continue
        source = _external_path(tensor, path)
        info = ExternalDataInfo(tensor)
        start, length = info.offset or 0, info.length or 0
        if start < 0 or length < 0 or start + length > source.stat().st_size:
            raise UserError(
                f"ONNX file {path.name}: external data {info.location!r} of tensor {tensor.name!r} is truncated: "
                f"{start + length} bytes needed, {source.stat().st_size} there; copy it again"
            )
        try:
            load_external_data_for_tensor(tensor, str(path.parent))
        except Exception as error:
            raise UserError(
                f"ONNX file {path.name}: external data {info.location!r} cannot be read: {' '.join(str(error).split())}"
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _external_path(tensor: onnx.TensorProto, path: Path) -> Path:
    try:
        location = ExternalDataInfo(tensor).location or ""
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"ONNX file {path.name}: tensor {tensor.name!r} has damaged external data: {error}") from error
    reason = unsafe_path(location)
    folder = path.parent.resolve()
    source = folder / location
    if reason is None and not source.resolve().is_relative_to(folder):
        reason = "leaves the folder through a link"
    if reason:
        raise UserError(
            f"ONNX file {path.name}: the external data {location!r} of tensor {tensor.name!r} {reason}; "
            "external data must be a file in the model's own folder"
        )
    if not source.is_file():
        raise UserError(f"ONNX file {path.name}: its external data {location!r} is missing; copy it beside the model")
    return source


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(subgraph)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(subgraph)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t


def _name(node: onnx.NodeProto) -> str:
    return repr(node.name) if node.name else f"that makes {node.output[0]!r}" if node.output else "without a name"
