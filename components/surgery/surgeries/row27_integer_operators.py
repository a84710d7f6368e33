"""Row 27: operators that compute in integers, as Q/DQ around the plain operator, which is what TensorRT fuses.

ONNX Runtime's quantizer writes them in its QOperator format (QLinearConv, QLinearMatMul and, in the domain
com.microsoft, QLinearAdd, QGemm and their kin) and for dynamic quantization (DynamicQuantizeLinear, MatMulInteger,
ConvInteger). TensorRT has none of them.

* A QLinear operator becomes DequantizeLinear, the operator on floats, QuantizeLinear. The integer operator rounds
  once, so do these; where a result lies half-way between two steps the rounding may fall the other way.
* An operator that only moves quantized numbers (MaxPool, Reshape ...) moves floats instead, between Q and DQ.
* A range that is measured at run time cannot become TensorRT's Q/DQ. Values are rounded to the same steps in plain
  arithmetic, so the numbers stay; the weights stay int8 behind a DequantizeLinear where they fit. For INT8 speed the
  model must be quantized statically.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.quantizers import DEQUANTIZE, EIGHT_BITS, QUANTIZE, quantizer
from components.surgery.surgeries.dynamic_quantization import ROUNDED, SUMS, measure_in_floats, measured_by
from components.surgery.surgeries.qlinear_forms import FORMS, RESULT_AT, Site, shaped
from components.surgery.surgery import TOLERANCE, Change, Options, Surgery, label, refusal

_WHY = "TensorRT has no operator that computes on integers of a quantizer"
_WAY_OUT = "quantize in the QDQ format (onnxruntime.quantization: QuantFormat.QDQ), or leave this layer in floats"
_STEP = 1.01 / 255
_SAME_NAME = frozenset({QUANTIZE, DEQUANTIZE, "QLinearConv"})
"""Operators of the standard that ONNX Runtime also has in its own domain."""
_UNKNOWN = frozenset({"QAttention", "DynamicQuantizeLSTM", "QEmbedLayerNormalization", "QLinearConvTranspose"})
_MOVES = frozenset(
    {
        *("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Expand", "Tile"),
        *("Split", "Identity", "Resize", "DepthToSpace", "SpaceToDepth"),
    }
)


def matches(graph: gs.Graph) -> bool:
    """Whether there is an integer operator, or one that moves integers between a quantizer and its reader."""
    return any(_integer(node) or _moves_integers(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Writes them as Q/DQ."""
    changes = []
    graph.toposort()
    for node in list(graph.nodes):
        if not node.outputs or label(node) in options.skip or not (_integer(node) or _moves_integers(node)):
            continue
        change = _rewrite(graph, node)
        changes += [change] if change is not None else []
    return changes


def _integer(node: gs.Node) -> bool:
    known = node.op in FORMS or node.op in SUMS or node.op == "DynamicQuantizeLinear" or node.op in _UNKNOWN
    return known or (node.op in _SAME_NAME and node.domain == "com.microsoft" and not _is_wide(node))


def _is_wide(node: gs.Node) -> bool:
    """Whether it quantizes to 16 bits, which is the business of row 28."""
    return any(numpy_dtype(tensor) in (np.dtype(np.int16), np.dtype(np.uint16)) for tensor in node.inputs)


def _rewrite(graph: gs.Graph, node: gs.Node) -> Change | None:
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/qdq")
    reads = tuple(t.name for t in node.inputs if isinstance(t, gs.Variable) and not t.is_empty())
    outputs = tuple(tensor.name for tensor in node.outputs if tensor.outputs or tensor in graph.outputs)
    change = Change(label(node), _WHY, "moves floats, between Q and DQ", inputs=reads, outputs=outputs)
    if node.op in _UNKNOWN or node.attrs.get("channels_last", 0):
        return refusal(node, f"{node.op} of this kind has no Q/DQ form here", _WAY_OUT)
    if node.op in (QUANTIZE, DEQUANTIZE):
        node.domain = None
        return replace(change, what="moved to the standard domain")
    if node.op in _MOVES:
        _move(emit, node)
        return change
    if node.op == "DynamicQuantizeLinear":
        return measure_in_floats(graph, emit, node)
    if node.op in SUMS:
        if measured_by(node.inputs[0]) is not None:
            return None  # goes with its DynamicQuantizeLinear
        SUMS[node.op](Site(node, emit))
        tolerance = TOLERANCE if node.op == "MatMulIntegerToFloat" else ROUNDED
        return replace(change, what=f"{node.op} computes the same sums in floats", tolerance=tolerance)
    quantized = optional_input(node, RESULT_AT[node.op]) is not None
    FORMS[node.op](Site(node, emit))
    change = replace(change, what=f"{node.op} is DequantizeLinear, the operator on floats, QuantizeLinear")
    return replace(change, span=255.0, tolerance=_STEP) if quantized else change


def _moves_integers(node: gs.Node) -> bool:
    """Whether the node only moves what a quantizer, or a constant's DequantizeLinear, is responsible for."""
    if node.op not in _MOVES or not node.inputs or numpy_dtype(node.inputs[0]) not in EIGHT_BITS:
        return False
    return (len(node.outputs) == 1 or node.op == "Split") and _parameters(node) is not None


def _parameters(node: gs.Node) -> list[gs.Tensor] | None:
    """Scale and zero point of the integers that the node moves, where they are one number for the whole tensor."""
    source = node.inputs[0]
    maker = source.inputs[0] if source.inputs else None
    if maker is not None:
        found = maker.inputs[1:3] if maker.op == QUANTIZE else []
        made = RESULT_AT.get(maker.op)
        if made is not None and len(maker.inputs) > made:
            found = maker.inputs[made : made + 2]
    else:
        readers = [reader for tensor in node.outputs for reader in tensor.outputs]
        alike = isinstance(source, gs.Constant) and readers and all(r.op == DEQUANTIZE for r in readers)
        found = readers[0].inputs[1:3] if alike and all(_same(r, readers[0]) for r in readers) else []
    values = [constant(tensor) for tensor in found]
    return list(found) if found and all(value is not None and value.size == 1 for value in values) else None


def _same(a: gs.Node, b: gs.Node) -> bool:
    mine, others = (quantizer(node) for node in (a, b))
    return mine is not None and others is not None and mine.same(others)


def _move(emit: Emitter, node: gs.Node) -> None:
    found = [shaped(emit, tensor, several=False) for tensor in _parameters(node) or ()]
    dtype = numpy_dtype(found[0])
    results = list(node.outputs)
    node.inputs[0] = emit(DEQUANTIZE, node.inputs[0], *found, dtype=dtype)
    node.outputs = [gs.Variable(f"{emit.prefix}/{position}", dtype=dtype) for position, _ in enumerate(results)]
    for result, moved in zip(results, list(node.outputs), strict=True):
        emit.finish(emit(QUANTIZE, moved, *found, dtype=result.dtype), result)


SURGERY = Surgery(
    row=27,
    name="integer operators",
    thread="onnxruntime.quantization's QOperator format and dynamic quantization",
    matches=matches,
    apply=apply,
)
