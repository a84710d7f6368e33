"""Row 25: QuantizeLinear and DequantizeLinear with a zero point, as ONNX Runtime's quantizer writes activations.

TensorRT is symmetric: "Non-zero zero point is not supported". Worse, its parser takes uint8 with zero point 0 for int8
without a word, which cuts everything above half of the range off. So every pair becomes int8 with zero point 0:

* uint8 with zero point 128 holds the same numbers as int8: exact.
* Otherwise the scale grows until the symmetric range covers the old one, which rounds more coarsely, by at most a
  factor of two (a range that begins at 0). The wider side saturates where it did. The narrower side would saturate
  later, so a Relu or Clip holds it back unless the tensor cannot get there: quantizers drop a Relu or Clip that
  saturation makes superfluous, and here it is needed again. TensorRT fuses it into the layer before.
* Weights are constants: a channel whose numbers fit keeps its scale and its numbers, the others get their own scale.
* Integers that leave or enter the graph stay what the caller knows, in plain arithmetic.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.quantizers import (
    DEQUANTIZE,
    EIGHT_BITS,
    QUANTIZE,
    Quantizer,
    Range,
    along,
    in_floats,
    quantizer,
    value_range,
)
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_WHY = "TensorRT has no zero points, and takes uint8 for int8 in silence"
_RUN_TIME = "its scale or zero point is computed at run time or is blocked"
_WAY_OUT = "quantize with symmetric int8 activations and weights (in ONNX Runtime: ActivationSymmetric, QInt8)"
_INT8 = np.dtype(np.int8)


def matches(graph: gs.Graph) -> bool:
    """Whether a pair is not symmetric int8."""
    return any(_asymmetric(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Makes them symmetric int8, activations first."""
    changes: list[Change] = []
    known: dict[str, Range] = {}
    outputs = {id(tensor) for tensor in graph.outputs}
    nodes = [node for node in graph.nodes if _asymmetric(node) and label(node) not in options.skip]
    quantizes = [node for node in nodes if node.op == QUANTIZE]
    for node in quantizes:  # while the old ranges still stand
        value_range(node.inputs[0], known)
    changes += [_activation(graph, node, known, outputs) for node in quantizes]
    for node in nodes:
        if node.op == DEQUANTIZE and node.outputs and _asymmetric(node):
            change = _dequantize(graph, node)
            changes += [change] if change is not None else []
    return changes


def _asymmetric(node: gs.Node) -> bool:
    if node.op not in (QUANTIZE, DEQUANTIZE) or len(node.inputs) < 2:
        return False
    zero = optional_input(node, 2)
    quantized = node.inputs[0] if node.op == DEQUANTIZE else node.outputs[0]
    dtype = numpy_dtype(zero) if zero is not None else numpy_dtype(quantized)
    if dtype is None and zero is None:
        dtype = np.dtype(np.uint8) if node.op == QUANTIZE else None
    if dtype not in EIGHT_BITS:
        return False
    values = None if zero is None else constant(zero)
    return dtype != _INT8 or (zero is not None and (values is None or bool(values.any())))


def _activation(graph: gs.Graph, node: gs.Node, known: dict[str, Range], outputs: set[int]) -> Change:
    by, q, x = quantizer(node), node.outputs[0], node.inputs[0]
    readers = list(q.outputs)
    if by is None:
        return refusal(node, _RUN_TIME, _WAY_OUT)
    strangers = [reader for reader in readers if reader.op != DEQUANTIZE or not _undoes(reader, by)]
    if strangers:
        words = f"{strangers[0].op} {label(strangers[0])!r} reads its integers"
        return refusal(node, words, _WAY_OUT)
    emit = Emitter(graph, f"{node.name or q.name}/int8")
    if id(q) in outputs:
        emit.finish(_integers(emit, x, by), q)
    factor = np.maximum(-by.low / 128, by.high / 127)
    scale = np.asarray(by.scale * factor, by.scale.dtype)
    bounded, words = _held_back(emit, x, by, value_range(x, known))
    constants = [emit.constant(scale), emit.constant(np.zeros(scale.shape, np.int8))]
    axis: dict[str, Any] = {"axis": by.axis} if scale.ndim else {}
    made = emit(QUANTIZE, bounded, *constants, dtype=np.int8, **axis)
    for reader in readers:
        reader.inputs = [made, *constants]
        reader.attrs = dict(axis)
    if id(q) not in outputs:
        node.outputs.clear()
    return Change(
        label(node),
        _WHY,
        _words(by, factor) + words,
        inputs=(x.name,) if isinstance(x, gs.Variable) else (),
        outputs=tuple(tensor.name for tensor in (*(r.outputs[0] for r in readers), *([q] if id(q) in outputs else []))),
        # Two roundings, to the old steps and to the new ones.
        tolerance=1e-5 if (factor == 1).all() else float((by.scale + scale).max()) / 2 / by.span * 1.01 + 1e-5,
        span=by.span,
    )


def _undoes(reader: gs.Node, by: Quantizer) -> bool:
    other = quantizer(reader)
    return other is not None and other.same(by)


def _words(by: Quantizer, factor: np.ndarray) -> str:
    given = f"{by.dtype}, zero point {by.zero}" if by.zero.ndim == 0 else f"{by.dtype}, a zero point a channel"
    if (factor == 1).all():
        return f"{given} is int8 without one, exactly"
    step = float((by.scale * factor).max()) / by.span
    return (
        f"{given} requantized to int8 without one; steps are {factor.max():.2f} times as wide, {step:.2%} of the range"
    )


def _held_back(emit: Emitter, x: gs.Tensor, by: Quantizer, bounds: Range) -> tuple[gs.Tensor, str]:
    """The tensor, kept within the old range where the new one is wider; and what that is called in the report."""
    if by.scale.ndim:
        if (by.low == -128).all():
            return x, ""
        rank = len(x.shape) if x.shape is not None else 4
        low, high = (along(np.asarray(side * by.scale, by.scale.dtype), by.axis, rank) for side in (by.low, by.high))
        return emit("Max", emit("Min", x, high, dtype=x.dtype), low, dtype=x.dtype), "; values are clipped as before"
    low, high = (np.asarray(side * by.scale, by.scale.dtype) for side in (by.low, by.high))
    wider_below = -by.low / 128 < by.high / 127 and bounds[0] < low
    wider_above = -by.low / 128 > by.high / 127 and bounds[1] > high
    if wider_below and low == 0:
        return emit("Relu", x, dtype=x.dtype), "; a Relu that saturation stood for is written out"
    if wider_below:
        return emit("Clip", x, low, dtype=x.dtype), f"; values below {low:g} are clipped as before"
    if wider_above:
        return emit(
            "Clip", x, gs.Variable.empty(), high, dtype=x.dtype
        ), f"; values above {high:g} are clipped as before"
    return x, ""


def _integers(emit: Emitter, x: gs.Tensor, by: Quantizer) -> gs.Variable:
    """The quantized numbers themselves, without QuantizeLinear."""
    rank = len(x.shape) if x.shape is not None else 4
    dtype = by.scale.dtype
    steps = emit("Round", emit("Div", x, along(by.scale, by.axis, rank), dtype=dtype), dtype=dtype)
    shifted = emit("Add", steps, along(by.zero.astype(dtype), by.axis, rank), dtype=dtype)
    limits = (np.array(limit, dtype) for limit in (np.iinfo(by.dtype).min, np.iinfo(by.dtype).max))
    return emit.cast(emit("Clip", shifted, *limits, dtype=dtype), by.dtype)


def _dequantize(graph: gs.Graph, node: gs.Node) -> Change | None:
    """Numbers that no QuantizeLinear of the graph made."""
    name, source, result = label(node), node.inputs[0], node.outputs[0]
    if source.inputs and source.inputs[0].op == QUANTIZE:
        return None  # refused there
    emit = Emitter(graph, f"{node.name or result.name}/int8")
    by, q = quantizer(node), constant(source)
    if by is not None and q is not None:
        return _weights(emit, node, by, q)
    if numpy_dtype(source) not in EIGHT_BITS or node.attrs.get("block_size", 0):
        return refusal(node, _RUN_TIME, _WAY_OUT)
    reads = tuple(tensor.name for tensor in node.inputs if isinstance(tensor, gs.Variable) and not tensor.is_empty())
    made = in_floats(emit, source, node.inputs[1], optional_input(node, 2), int(node.attrs.get("axis", 1)))
    emit.finish(made, result)
    return Change(name, _WHY, "dequantized in plain arithmetic", inputs=reads, outputs=(result.name,))


def _weights(emit: Emitter, node: gs.Node, by: Quantizer, q: np.ndarray) -> Change:
    axis = by.axis % q.ndim if by.scale.ndim else _channel_axis(node)
    centred = q.astype(np.int64) - along(by.zero, by.axis, q.ndim)
    least, most = (_of_channels(centred, axis, reduce) for reduce in (np.min, np.max))
    fits = (least >= -128) & (most <= 127)
    name = label(node)
    if fits.all():
        values, scale, axis = centred, by.scale, by.axis
        words, tolerance = "the numbers fit int8 without a zero point, exactly", 1e-5
    else:
        factor = np.where(fits, 1.0, np.maximum(-least, most) / 127)
        scale = np.asarray(by.scale * factor, by.scale.dtype)
        values = np.round(centred / along(factor, axis or 0, q.ndim))
        moved = f"{(~fits).sum()} of {fits.size} channels are" if fits.ndim else "the tensor is"
        words = f"{moved} requantized to int8 without a zero point; the others keep their numbers"
        # Half a step of the channel with the widest steps, against the largest weight.
        tolerance = (
            float(scale.max()) / 2 / max(float(np.abs(centred * along(by.scale, by.axis, q.ndim)).max()), 1e-30) + 1e-5
        )
    constants = [values.astype(np.int8), scale, np.zeros(np.shape(scale), np.int8)]
    node.inputs = [emit.constant(value) for value in constants]
    node.attrs = {"axis": int(axis or 0)} if np.ndim(scale) else {}
    return Change(name, _WHY, words, outputs=(node.outputs[0].name,), tolerance=tolerance)


def _of_channels(values: np.ndarray, axis: int | None, reduce: Callable[..., Any]) -> np.ndarray:
    """Smallest or largest number of each channel, or of all: [] or [C]."""
    if axis is None:
        return np.asarray(reduce(values))
    return np.asarray(reduce(values, axis=tuple(other for other in range(values.ndim) if other != axis)))


def _channel_axis(node: gs.Node) -> int | None:
    """The axis of the output channels in weights that one layer reads; None where there may be none."""
    readers = node.outputs[0].outputs
    if len(readers) != 1 or not any(tensor is node.outputs[0] for tensor in readers[0].inputs[1:2]):
        return None
    (reader,) = readers
    rank = node.inputs[0].values.ndim
    if reader.op == "Conv":
        return 0
    if reader.op == "ConvTranspose":
        return 1 if reader.attrs.get("group", 1) == 1 else None
    if reader.op == "Gemm":
        return 0 if reader.attrs.get("transB", 0) else 1
    return rank - 1 if reader.op == "MatMul" and rank >= 2 else None


SURGERY = Surgery(
    row=25,
    name="zero points",
    thread="onnxruntime.quantization's default",
    matches=matches,
    apply=apply,
)
