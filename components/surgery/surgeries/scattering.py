"""Scatters with a reduction (rows 20 and 44), seen as a table of which update goes to which place.

`ScatterElements` along an axis: the other axes are lanes [L], the axis has P places and the indices give I updates;
data [L, P], indices and updates [L, I]. `ScatterND`: P places, I updates, each a row of R numbers; data [P, R],
indices [I], updates [I, R]; so is a `ScatterElements` with one index for a whole row.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, static_shape

MAX_TABLE = 2**27
"""Elements of the largest table; 512 MiB in float32."""
_SCATTERS = ("ScatterElements", "ScatterND", "Scatter")


class NotScatterableError(Exception):
    """Why a scatter cannot be written as a table."""


@dataclass(frozen=True)
class Scatter:
    """A scatter whose sizes are known."""

    node: gs.Node
    rowwise: bool
    """Whether it moves rows [places, rest] (ScatterND, or the same index for the whole row), else lanes."""
    axis: int
    lanes: int
    places: int
    updates: int
    rest: int
    shape: tuple[int, ...]
    """Of the data."""

    @property
    def table(self) -> int:
        """Elements of the table [lanes, places, updates]."""
        return self.lanes * self.places * self.updates


def reductions(graph: gs.Graph, kinds: frozenset[str]) -> list[gs.Node]:
    """The scatters of a graph whose reduction is one of `kinds`."""
    return [node for node in graph.nodes if node.op in _SCATTERS and node.attrs.get("reduction", "none") in kinds]


def describe(node: gs.Node) -> Scatter:
    """The sizes of a scatter.

    Raises:
        NotScatterableError: they are not fixed.
    """
    data, indices = (static_shape(tensor) for tensor in node.inputs[:2])
    if data is None or indices is None:
        raise NotScatterableError("the shapes of its data and indices are not fixed")
    if node.op == "ScatterND":
        width = indices[-1]
        places, updates = math.prod(data[:width]), math.prod(indices[:-1])
        return Scatter(node, True, 0, 1, places, updates, math.prod(data[width:]), data)
    axis = int(node.attrs.get("axis", 0)) % len(data)
    if any(index > side for place, (index, side) in enumerate(zip(indices, data, strict=True)) if place != axis):
        raise NotScatterableError("its indices reach beyond the data")
    lanes = math.prod(side for place, side in enumerate(indices) if place != axis)
    if _same_for_row(node.inputs[1], axis) and indices[:axis] + indices[axis + 1 :] == data[:axis] + data[axis + 1 :]:
        return Scatter(node, True, axis, 1, data[axis], indices[axis], lanes, data)
    return Scatter(node, False, axis, lanes, data[axis], indices[axis], 1, data)


def emit_table(emit: Emitter, scatter: Scatter) -> tuple[gs.Tensor, gs.Tensor]:
    """Writes which update goes to which place, and the updates in that order.

    Returns:
        bool [lanes, updates, places] or, row by row, [places, updates]; and the updates [lanes, updates] or
        [updates, rest].
    """
    flat = _flat_indices(emit, scatter)
    numbers = np.arange(scatter.places, dtype=np.int64)
    updates = _arranged(emit, scatter, scatter.node.inputs[2], scatter.updates)
    if scatter.rowwise:
        flat = emit.reshape(flat, (1, -1), dtype=np.int64)
        return emit("Equal", flat, numbers[:, None], dtype=bool), updates
    flat = emit.reshape(flat, (scatter.lanes, scatter.updates, 1), dtype=np.int64)
    return emit("Equal", flat, numbers[None, None], dtype=bool), updates


def emit_combined(emit: Emitter, scatter: Scatter, op: str, change: gs.Tensor) -> gs.Variable:
    """Writes ``op(data, change)``.

    Args:
        emit: writes the nodes.
        scatter: the scatter.
        op: Add, Max, Min or Mul.
        change: [lanes, places] or [places, rest].
    """
    data, dtype = scatter.node.inputs[0], numpy_dtype(scatter.node.inputs[0])
    shape = scatter.shape
    if scatter.rowwise and scatter.node.op == "ScatterND":
        return emit(op, data, emit.reshape(change, shape, dtype=dtype), dtype=dtype)
    order = _axis_order(scatter)
    indices = static_shape(scatter.node.inputs[1]) or shape
    sizes = [scatter.places if place == scatter.axis else indices[place] for place in order]
    back = emit("Transpose", emit.reshape(change, sizes, dtype=dtype), dtype=dtype, perm=list(np.argsort(order)))
    reached = tuple(scatter.places if place == scatter.axis else side for place, side in enumerate(indices))
    if reached == shape:
        return emit(op, data, back, dtype=dtype)
    # Lanes beyond the indices keep their data.
    neutral = neutral_of(op, dtype)
    for place, (side, whole) in enumerate(zip(reached, shape, strict=True)):
        if side < whole:
            block = tuple(
                whole - side if other == place else (shape[other] if other < place else reached[other])
                for other in range(len(shape))
            )
            back = emit("Concat", back, np.full(block, neutral, dtype), dtype=dtype, axis=place)
    return emit(op, data, back, dtype=dtype)


def neutral_of(op: str, dtype: np.dtype | None) -> float:
    """What changes nothing under an operator."""
    kind = np.dtype(dtype or np.float32)
    if op in ("Add", "Mul"):
        return float(op == "Mul")
    if kind.kind == "f":
        return -math.inf if op == "Max" else math.inf
    limits = np.iinfo(kind)
    return int(limits.min if op == "Max" else limits.max)


def _axis_order(scatter: Scatter) -> list[int]:
    others = [place for place in range(len(scatter.shape)) if place != scatter.axis]
    return [scatter.axis, *others] if scatter.rowwise else [*others, scatter.axis]


def _arranged(emit: Emitter, scatter: Scatter, tensor: gs.Tensor, size: int) -> gs.Tensor:
    """A tensor of the updates' shape as [lanes, size] or [size, rest]."""
    target = (size, scatter.rest) if scatter.rowwise else (scatter.lanes, size)
    dtype = tensor.dtype
    if scatter.node.op != "ScatterND":
        tensor = emit("Transpose", tensor, dtype=dtype, perm=_axis_order(scatter))
    return emit.reshape(tensor, target, dtype=dtype)


def _flat_indices(emit: Emitter, scatter: Scatter) -> gs.Tensor:
    """Places as int64, counted from the start."""
    node, indices = scatter.node, scatter.node.inputs[1]
    if numpy_dtype(indices) != np.int64:
        indices = emit.cast(indices, np.int64)
    if node.op == "ScatterND":
        shape = static_shape(node.inputs[1]) or ()
        sides = np.array(scatter.shape[: shape[-1]], np.int64)
        strides = np.array([math.prod(sides[place + 1 :]) for place in range(len(sides))], np.int64)
        indices = _from_start(emit, indices, sides)
        weighted = emit("Mul", indices, strides, dtype=np.int64)
        return emit.reduce("ReduceSum", weighted, [len(shape) - 1], keepdims=False, dtype=np.int64)
    indices = _from_start(emit, indices, np.array(scatter.places, np.int64))
    if not scatter.rowwise:
        return emit("Transpose", indices, dtype=np.int64, perm=_axis_order(scatter))
    # The same in the whole row: the first of each.
    rank = len(scatter.shape)
    others = [place for place in range(rank) if place != scatter.axis]
    if not others:
        return indices
    bounds = [np.array(values, np.int64) for values in ([0] * len(others), [1] * len(others), others)]
    return emit("Slice", indices, *bounds, dtype=np.int64)


def _from_start(emit: Emitter, indices: gs.Tensor, size: np.ndarray) -> gs.Variable:
    negative = emit("Less", indices, np.array(0, np.int64), dtype=bool)
    return emit("Where", negative, emit("Add", indices, size, dtype=np.int64), indices, dtype=np.int64)


def _same_for_row(indices: gs.Tensor, axis: int) -> bool:
    """Whether the indices are known to be equal along all other axes."""
    values = constant(indices)
    if values is not None:
        first = values[tuple(slice(None) if place == axis else slice(1) for place in range(values.ndim))]
        return bool(values.size) and bool((values == first).all())
    while indices.inputs and indices.inputs[0].op in ("Identity", "Cast"):
        indices = indices.inputs[0].inputs[0]
    if len(indices.shape or ()) == 1:
        return True
    if not indices.inputs or indices.inputs[0].op != "Expand":
        return False
    source = static_shape(indices.inputs[0].inputs[0])
    if source is None:
        return False
    padded = (1,) * (len(indices.shape) - len(source)) + source
    return all(side == 1 for place, side in enumerate(padded) if place != axis)
