"""Integer types that TensorRT lacks, as types that it has (rows 8, 9 and 10)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype
from components.surgery.quantizers import MOVES
from components.surgery.retype import WRAPS, Border, Region, insert_after, outside, retype, wrapped
from components.surgery.surgery import Change, refusal

_FLOAT, _INT32, _INT64 = (np.dtype(dtype) for dtype in (np.float32, np.int32, np.int64))
_QUANTIZED = ("Linear", "Integer", "QGemm", "QAttention")
_FLOAT_ONLY = frozenset({"Resize", "MaxPool", "GridSample", "DepthToSpace", "SpaceToDepth"})
"""Operators that TensorRT has for floats and not for INT32."""
_EXACT_IN_FLOATS = MOVES | _FLOAT_ONLY | {"Cast", "Where", "Pad", "Equal", "Greater", "Less", "Not", "Shape"}

_MODES = ("nearest", "constant", "edge", "reflect", "DCR", "CRD")
"""Modes of these operators that make no new numbers."""


def is_quantized(region: Region) -> bool:
    """Whether a quantizer's integers are meant, which are the business of rows 25 and 27."""
    return any(word in node.op for node in region.nodes for word in _QUANTIZED)


def wider(region: Region, *, integer: bool = False) -> np.dtype:
    """The type that holds every number of the region's type and that its operators have in TensorRT.

    Args:
        region: integers of one type.
        integer: whether floats will not do.
    """
    if region.dtype.itemsize > 2:
        return _INT64
    inner = [node for node in region.nodes if node.op != "Cast"]
    plain = all(node.op in _EXACT_IN_FLOATS and node.attrs.get("mode", "nearest") in _MODES for node in inner)
    to_floats = all(_makes_float(node) for node in region.nodes if node.op == "Cast" and not region.has_out(node))
    float_only = any(node.op in _FLOAT_ONLY for node in inner)
    return _FLOAT if plain and not integer and (to_floats or float_only) else _INT32


def _makes_float(node: gs.Node) -> bool:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.BOOL)
    return node.attrs.get("to") in floats


def widen(graph: gs.Graph, region: Region, shared: Border, why: str, *, interface: bool) -> Change:
    """Gives a region a type that TensorRT has; results are what the small type would have held.

    Args:
        graph: the graph.
        region: integers of one type.
        shared: border of the graph.
        why: for the report.
        interface: whether inputs and outputs of the graph change type too.
    """
    limits: Any = np.iinfo(str(region.dtype))
    if any((tensor.values > np.iinfo(np.int64).max).any() for tensor in region.constants if limits.bits == 64):
        return refusal(region.nodes[0], f"{why}, and a constant does not fit INT64", "use smaller numbers, or INT64")
    if limits.bits == 64 and any(node.op in WRAPS for node in region.nodes):
        return refusal(region.nodes[0], f"{why}, and its arithmetic may wrap around at 2^64", "compute in INT64")
    seen = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    touched = [tensor.name for tensor in region.variables if interface and id(tensor) in seen]
    dtype = wider(region, integer=bool(touched))
    reads, makes = outside(region, shared)
    words = f"{len(region.nodes)} operators on {region.dtype} compute in {dtype}"
    if touched:
        words += f"; the caller feeds or gets {dtype} for {', '.join(map(repr, touched))}"
    change = Change(region.label, why, words, inputs=() if touched else reads, outputs=() if touched else makes)
    emit = Emitter(graph, f"{region.path}/range")
    wraps = [node for node in region.nodes if node.op in WRAPS and region.has_out(node)]
    for node in region.nodes:
        if node.op == "Cast" and region.has_out(node) and not region.has_in(node):
            _hold(emit, node, limits)
    retype(graph, region, dtype, shared, _converter(dtype), interface=interface)
    for node in wraps:
        insert_after(node, lambda raw: wrapped(emit, raw, limits, dtype))
    return change


def _hold(emit: Emitter, cast: gs.Node, limits: np.iinfo) -> None:
    """Drops what a cast to the small type drops: a float's fraction and an integer's high bits.

    Floats out of range have no defined result; most processors cut them like integers, and so does this.
    """
    x = cast.inputs[0]
    given = numpy_dtype(x) or _FLOAT
    if given.kind == "b" or (given.kind in "iu" and (limits.bits == 64 or _holds(limits, np.iinfo(str(given))))):
        return
    whole = _INT64 if limits.bits >= 32 or given == _INT64 else _INT32
    integers = x if given == whole else emit.cast(x, whole)
    cast.inputs = [integers if limits.bits == 64 else wrapped(emit, integers, limits, whole)]


def _holds(limits: np.iinfo, given: np.iinfo) -> bool:
    return int(limits.min) <= int(given.min) and int(given.max) <= int(limits.max)


def _converter(dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values.astype(dtype)
