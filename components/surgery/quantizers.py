"""What rows 25 to 28 know of QuantizeLinear and DequantizeLinear: their parameters, and what values pass through."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input, scalar

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
EIGHT_BITS = (np.dtype(np.int8), np.dtype(np.uint8))
MOVES = frozenset(
    {
        "Identity",
        "Reshape",
        "Transpose",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Gather",
        "GatherElements",
        "GatherND",
        "Expand",
        "Tile",
        "Split",
        "DepthToSpace",
        "SpaceToDepth",
        "MaxPool",
        "ReduceMax",
        "ReduceMin",
        "Max",
        "Min",
        "Concat",
    }
)
"""Operators whose results are some of their inputs' values."""
_AVERAGES = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "Resize", "Dropout"})
"""Operators whose results lie between their inputs' values and 0."""
_DEPTH = 32
Range = tuple[float, float]
EVERYTHING: Range = (-np.inf, np.inf)


@dataclass(frozen=True)
class Quantizer:
    """Parameters of a QuantizeLinear or DequantizeLinear: ``real = scale * (q - zero)``."""

    scale: np.ndarray
    """Scalar, or one number a channel. [] or [C]"""
    zero: np.ndarray
    """As int64, same shape as the scale."""
    dtype: np.dtype
    """Of the quantized numbers."""
    axis: int
    """Of the channels; says nothing where the scale is a scalar."""

    @property
    def low(self) -> np.ndarray:
        """Smallest ``q - zero``."""
        return int(np.iinfo(self.dtype).min) - self.zero

    @property
    def high(self) -> np.ndarray:
        """Largest ``q - zero``."""
        return int(np.iinfo(self.dtype).max) - self.zero

    @property
    def span(self) -> float:
        """Largest magnitude that it can hold."""
        return float((np.maximum(-self.low, self.high) * np.abs(self.scale.astype(np.float64))).max())

    def same(self, other: "Quantizer") -> bool:
        """Whether both map the same numbers to the same numbers."""
        return (
            self.dtype == other.dtype
            and (self.scale.ndim == 0 or self.axis == other.axis)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
        )


def quantizer(node: gs.Node) -> Quantizer | None:
    """The parameters, or None where they are computed at run time, blocked, or not of 8, 16 or 32 bits."""
    scale, zero = constant(node.inputs[1]), optional_input(node, 2)
    if scale is None or node.attrs.get("block_size", 0):
        return None
    dtype = numpy_dtype(zero) if zero is not None else None
    if dtype is None:
        dtype = numpy_dtype(node.inputs[0] if node.op == DEQUANTIZE else node.outputs[0]) or np.dtype(np.uint8)
    values = np.zeros((), np.int64) if zero is None else constant(zero)
    if values is None or dtype.kind not in "iu":
        return None
    if scale.size == 1:
        scale = scale.reshape(())
    shape = np.broadcast_shapes(scale.shape, values.shape if values.size > 1 else ())
    if len(shape) > 1:
        return None
    return Quantizer(
        np.broadcast_to(scale, shape),
        np.broadcast_to(values.reshape(-1) if values.size > 1 else values.reshape(()), shape).astype(np.int64),
        dtype,
        int(node.attrs.get("axis", 1)),
    )


def along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Numbers of the channels, shaped so that they broadcast with a tensor of `rank` dimensions."""
    if values.ndim == 0:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def dequantized(q: np.ndarray, by: Quantizer) -> np.ndarray:
    """What DequantizeLinear makes of a constant, in the type of the scale."""
    zero, scale = along(by.zero, by.axis, q.ndim), along(by.scale, by.axis, q.ndim)
    return np.asarray((q.astype(np.int64) - zero).astype(scale.dtype) * scale, by.scale.dtype)


def in_floats(emit: Emitter, q: gs.Tensor, scale: gs.Tensor, zero: gs.Tensor | None, axis: int) -> gs.Variable:
    """DequantizeLinear of a tensor that is no quantizer's, such as an input of the graph, in plain arithmetic."""
    dtype = numpy_dtype(scale) or np.dtype(np.float32)
    rank = len(q.shape) if q.shape is not None else 0
    value = emit.cast(q, dtype)
    for op, operand in (("Sub", zero), ("Mul", scale)):
        if operand is None:
            continue
        known = constant(operand)
        if known is None:
            other = operand if op == "Mul" else emit.cast(operand, dtype)
        elif op == "Sub" and not known.any():
            continue
        else:
            other = along(known.astype(dtype).reshape(-1 if known.size > 1 else ()), axis, rank)
        value = emit(op, value, other, dtype=dtype)
    return value


def value_range(tensor: gs.Tensor, known: dict[str, Range], depth: int = _DEPTH) -> Range:
    """Bounds that all values of a tensor keep, whatever the input.

    Args:
        tensor: any tensor of the graph.
        known: bounds by name; what is found is added.
        depth: how many operators to look back.
    """
    if tensor.name in known and tensor.name:
        return known[tensor.name]
    found = EVERYTHING
    values = constant(tensor)
    if values is not None:
        found = (float(values.min()), float(values.max())) if values.size and values.dtype.kind in "fiu" else EVERYTHING
    elif tensor.inputs and depth:
        found = _node_range(tensor.inputs[0], known, depth - 1)
    known[tensor.name] = found
    return found


def _node_range(node: gs.Node, known: dict[str, Range], depth: int) -> Range:
    rule = _RANGES.get(node.op)
    if rule is not None:
        return rule(node, known, depth)
    if node.op in MOVES or (node.op in _AVERAGES and node.attrs.get("mode") != "cubic"):
        data = node.inputs if node.op in ("Max", "Min", "Concat") else node.inputs[:1]
        ranges = [value_range(tensor, known, depth) for tensor in data]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        return (low, high) if node.op in MOVES else (min(low, 0.0), max(high, 0.0))
    return EVERYTHING


def _relu(node: gs.Node, known: dict[str, Range], depth: int) -> Range:
    low, high = value_range(node.inputs[0], known, depth)
    return max(low, 0.0), max(high, 0.0)


def _clip(node: gs.Node, known: dict[str, Range], depth: int) -> Range:
    low, high = value_range(node.inputs[0], known, depth)
    limits = list(EVERYTHING)
    for index in (1, 2):
        limit = optional_input(node, index)
        known_limit = None if limit is None else scalar(limit)
        if limit is not None and known_limit is None:
            return EVERYTHING
        limits[index - 1] = limits[index - 1] if known_limit is None else float(known_limit)
    least, most = limits
    return min(max(low, least), most), min(max(high, least), most)


def _dequantize(node: gs.Node, known: dict[str, Range], depth: int) -> Range:
    by = quantizer(node)
    if by is None or by.scale.ndim:
        return EVERYTHING
    low, high = float(by.low * by.scale), float(by.high * by.scale)
    source = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if source is None or source.op != QUANTIZE:
        return low, high
    given = quantizer(source)
    if given is None or not given.same(by):
        return low, high
    # Rounding moves a bound by half a step, but not beyond 0.
    least, most = value_range(source.inputs[0], known, depth)
    half = float(by.scale) / 2
    return max(low, 0.0 if least >= 0 else least - half), min(high, 0.0 if most <= 0 else most + half)


def _mul(node: gs.Node, known: dict[str, Range], depth: int) -> Range:
    (a, b), (c, d) = (value_range(tensor, known, depth) for tensor in node.inputs)
    with np.errstate(invalid="ignore"):
        products = [0.0 if 0 in (p, q) else p * q for p in (a, b) for q in (c, d)]
    return min(products), max(products)


def _add(node: gs.Node, known: dict[str, Range], depth: int) -> Range:
    (a, b), (c, d) = (value_range(tensor, known, depth) for tensor in node.inputs)
    return a + c, b + d


_RANGES: dict[str, Callable[[gs.Node, dict[str, Range], int], Range]] = {
    "Relu": _relu,
    "Clip": _clip,
    "Mul": _mul,
    "Add": _add,
    DEQUANTIZE: _dequantize,
    "Sigmoid": lambda *_: (0.0, 1.0),
    "HardSigmoid": lambda *_: (0.0, 1.0),
    "Softmax": lambda *_: (0.0, 1.0),
    "Tanh": lambda *_: (-1.0, 1.0),
    "Exp": lambda *_: (0.0, np.inf),
    "Sqrt": lambda *_: (0.0, np.inf),
    "Abs": lambda *_: (0.0, np.inf),
    "Softplus": lambda *_: (0.0, np.inf),
}
