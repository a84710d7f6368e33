"""Row 21: a write to a fixed part of a tensor (``x[:, 1:3] = v``): ScatterND with constant indices.

TensorRT-RTX takes it; TensorRT before 8 does not, and no fusion sees through it. A block of neighbours is a Concat of
slices. Any other fixed places (strides, lists) are one Gather from the data with the updates behind it; the last of
several updates of one place wins, as in ONNX Runtime.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant
from components.surgery.surgery import Change, Options, Surgery, label

MAX_PLACES = 2**16
"""Places up to which a Gather replaces a scatter that is no block."""
_WHY = "TensorRT before 8 has no ScatterND, and fusions stop at one"
Block = list[tuple[int, int]]
"""First and last but one index in each of the first axes."""


def matches(graph: gs.Graph) -> bool:
    """Whether a scatter writes to constant places."""
    return any(_sizes(node) is not None for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each."""
    changes = []
    for node in list(graph.nodes):
        sizes = None if label(node) in options.skip else _sizes(node)
        change = None if sizes is None else _replace(graph, node, sizes)
        if change is not None:
            changes.append(change)
    return changes


def _sizes(node: gs.Node) -> list[int] | None:
    """Sizes of the axes that the constant indices of a scatter count in."""
    if node.op != "ScatterND" or node.attrs.get("reduction", "none") not in ("none", b"none"):
        return None
    indices = constant(node.inputs[1])
    shape = node.inputs[0].shape
    if indices is None or indices.size == 0 or shape is None or node.inputs[2].is_empty():
        return None
    sizes = list(shape[: indices.shape[-1]])
    return [int(size) for size in sizes] if all(isinstance(size, int | np.integer) for size in sizes) else None


def _replace(graph: gs.Graph, node: gs.Node, sizes: Sequence[int]) -> Change | None:
    called, result, (x, _, updates) = label(node), node.outputs[0], node.inputs
    places = np.asarray(constant(node.inputs[1])).reshape(-1, len(sizes))
    places = np.where(places < 0, places + np.array(sizes), places)
    block = _block(places)
    rest = list(x.shape[len(sizes) :])
    unknown = [size for size in rest if not isinstance(size, int | np.integer)]
    if len(unknown) > 1 or (block is None and math.prod(sizes) > MAX_PLACES):
        return None
    emit = Emitter(graph, f"{called}/write")
    tail = [int(size) if isinstance(size, int | np.integer) else -1 for size in rest]
    if block is not None:
        extent = [end - start for start, end in block]
        piece = emit.reshape(updates, [*extent, *tail], dtype=x.dtype)
        made, what = _framed(emit, x, piece, block, sizes, 0), "a block of neighbours: a Concat of slices"
    else:
        made, what = _gathered(emit, x, updates, places, sizes, tail), f"{len(places)} fixed places: a Gather"
    emit.finish(made, result)
    inputs = tuple(dict.fromkeys(tensor.name for tensor in (x, updates) if constant(tensor) is None))
    return Change(called, _WHY, what, inputs=inputs, outputs=(result.name,))


def _block(places: np.ndarray) -> Block | None:
    """The block that the places are, in its order; None when they are none."""
    low, high = places.min(0), places.max(0) + 1
    extent = high - low
    if int(np.prod(extent)) != len(places):
        return None
    grid = np.indices(extent).reshape(len(extent), -1).T + low
    return [(int(a), int(b)) for a, b in zip(low, high, strict=True)] if np.array_equal(grid, places) else None


def _framed(
    emit: Emitter, x: gs.Tensor, piece: gs.Tensor, block: Block, sizes: Sequence[int], axis: int
) -> gs.Variable:
    """`x` with a block replaced: what is before it along an axis, the block within its own range, what is behind."""
    whole = [start == 0 and end == size for (start, end), size in zip(block, sizes, strict=True)]
    if all(whole[axis:]):
        return emit("Identity", piece, dtype=x.dtype) if axis == 0 else piece
    start, end = block[axis]
    if whole[axis]:
        return _framed(emit, x, piece, block, sizes, axis + 1)

    def part(first: int, last: int) -> gs.Variable:
        bounds = [np.array([value], np.int64) for value in (first, last, axis)]
        return emit("Slice", x, *bounds, dtype=x.dtype)

    within = piece if all(whole[axis + 1 :]) else _framed(emit, part(start, end), piece, block, sizes, axis + 1)
    parts = [part(0, start)] if start else []
    parts.append(within)
    if end < sizes[axis]:
        parts.append(part(end, sizes[axis]))
    return emit("Concat", *parts, dtype=x.dtype, axis=axis)


def _gathered(
    emit: Emitter, x: gs.Tensor, updates: gs.Tensor, places: np.ndarray, sizes: Sequence[int], tail: Sequence[int]
) -> gs.Variable:
    count = math.prod(sizes)
    flat = np.ravel_multi_index(tuple(places.T), sizes)
    source = np.arange(count, dtype=np.int64)
    source[flat] = count + np.arange(len(flat))
    rows = emit.reshape(x, [count, *tail], dtype=x.dtype)
    new = emit.reshape(updates, [len(flat), *tail], dtype=x.dtype)
    both = emit("Concat", rows, new, dtype=x.dtype, axis=0)
    return emit.reshape(emit("Gather", both, source, dtype=x.dtype, axis=0), [*sizes, *tail], dtype=x.dtype)


SURGERY = Surgery(
    row=21,
    name="write to a fixed part",
    thread="onnx-tensorrt: No importer registered for op: ScatterND",
    matches=matches,
    apply=apply,
)
