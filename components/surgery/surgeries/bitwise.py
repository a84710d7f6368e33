"""Bitwise operators (row 38) by arithmetic, which TensorRT has, where it has no bitwise operators.

A number becomes its bits along a new last axis; and, or, xor are product, maximum and distance of bits. The sign bit
of two's complement is kept apart, so that nothing overflows. The work is done in int32, or int64 where that is narrow.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype

_EXACT = 32
"""Bits that are summed at a time: ONNX Runtime sums int64 in float64, which has 53."""
OPERATORS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift")


class UnknownWidthError(Exception):
    """The type is not known, or has no type to work in."""


@dataclass(frozen=True)
class _Width:
    work: np.dtype
    bits: int
    """Of the magnitude."""
    signed: bool


def emit_bitwise(emit: Emitter, node: gs.Node, given: list[gs.Tensor]) -> gs.Tensor:
    """Writes the nodes; the result is in the type that is worked in.

    Args:
        emit: writes the nodes.
        node: one of `OPERATORS`.
        given: its inputs, in the type that is worked in.

    Raises:
        UnknownWidthError: as said there.
    """
    width = width_of(node)
    if node.op == "BitwiseNot":
        # -1 - x in two's complement, the largest number minus x without a sign.
        return emit("Sub", np.array(-1 if width.signed else 2**width.bits - 1, width.work), *given, dtype=width.work)
    if node.op == "BitShift":
        return _shift(emit, node, given, width)
    parts = [_bits(emit, tensor, width) for tensor in given]
    bits = _combine(emit, node.op, [part[0] for part in parts], width.work)
    low = _number(emit, bits, width)
    if not width.signed:
        return low
    sign = _combine(emit, node.op, [part[1] for part in parts], width.work)
    lowest = np.array(-(2**width.bits), width.work)
    return emit("Add", low, emit("Mul", sign, lowest, dtype=width.work), dtype=width.work)


def width_of(node: gs.Node) -> _Width:
    """What a node's numbers are worked in.

    Raises:
        UnknownWidthError: as said there.
    """
    known = [numpy_dtype(tensor) for tensor in (*node.inputs, *node.outputs)]
    dtype = next((each for each in known if each is not None), None)
    if dtype is None or dtype.kind not in "iu" or dtype == np.uint64:
        raise UnknownWidthError(f"{dtype or 'its type'} is no integer type that TensorRT can work in")
    wide = dtype in (np.int64, np.uint32)
    signed = dtype.kind == "i"
    # Narrow signed numbers keep their sign in int32.
    bits = (63 if dtype == np.int64 else 31) if signed else 8 * dtype.itemsize
    return _Width(np.dtype(np.int64 if wide else np.int32), bits, signed)


def working(emit: Emitter, tensor: gs.Tensor, width: _Width) -> gs.Tensor:
    """A tensor in the type that is worked in."""
    values = constant(tensor)
    if values is not None:
        return emit.constant(values.astype(width.work))
    return tensor if numpy_dtype(tensor) == width.work else emit.cast(tensor, width.work)


def _number(emit: Emitter, bits: gs.Tensor, width: _Width) -> gs.Variable:
    """The number that bits along the last axis are."""
    parts = []
    for start in range(0, width.bits, _EXACT):
        count = min(_EXACT, width.bits - start)
        bounds = [np.array([value], np.int64) for value in (start, start + count, -1)]
        some = bits if count == width.bits else emit("Slice", bits, *bounds, dtype=width.work)
        weights = np.array([2**place for place in range(count)], width.work)
        weighted = emit("Mul", some, weights, dtype=width.work)
        total = emit.reduce("ReduceSum", weighted, [-1], keepdims=False, dtype=width.work)
        parts.append(total if start == 0 else emit("Mul", total, np.array(2**start, width.work), dtype=width.work))
    return parts[0] if len(parts) == 1 else emit("Add", *parts, dtype=width.work)


def _bits(emit: Emitter, x: gs.Tensor, width: _Width) -> tuple[gs.Tensor, gs.Tensor]:
    """Bits along a new last axis, and the sign bit; 0 or 1."""
    zero, two = np.array(0, width.work), np.array(2, width.work)
    sign, magnitude = x, x
    if width.signed:
        negative = emit("Less", x, zero, dtype=bool)
        sign = emit.cast(negative, width.work)
        # In two steps, since 2**bits itself is out of range.
        half = np.array(2 ** (width.bits - 1), width.work)
        lifted = emit("Add", emit("Add", x, half, dtype=width.work), half, dtype=width.work)
        magnitude = emit("Where", negative, lifted, x, dtype=width.work)
    weights = np.array([2**place for place in range(width.bits)], width.work)
    column = emit("Unsqueeze", magnitude, np.array([-1], np.int64), dtype=width.work)
    shifted = emit("Div", column, weights, dtype=width.work)
    return emit("Mod", shifted, two, dtype=width.work), sign


def _combine(emit: Emitter, op: str, parts: list[gs.Tensor], work: np.dtype) -> gs.Tensor:
    if op == "BitwiseAnd":
        return emit("Mul", *parts, dtype=work)
    if op == "BitwiseOr":
        return emit("Max", *parts, dtype=work)
    return emit("Abs", emit("Sub", *parts, dtype=work), dtype=work)


def _shift(emit: Emitter, node: gs.Node, given: list[gs.Tensor], width: _Width) -> gs.Tensor:
    powers = np.array([2**place for place in range(width.bits)], width.work)
    power = emit("Gather", powers, given[1], dtype=width.work, axis=0)
    if node.attrs["direction"] == "RIGHT":
        return emit("Div", given[0], power, dtype=width.work)
    # What would be shifted out goes first, so that the product stays in range.
    kept = emit("Div", np.array(2**width.bits, np.int64).astype(width.work), power, dtype=width.work)
    return emit("Mul", emit("Mod", given[0], kept, dtype=width.work), power, dtype=width.work)
