"""Row 16: TopK of more than 3840 elements (TensorRT #4244).

TensorRT parses any K and builds no layer of more than 3840. Here TopK runs several times: each run takes the next 3840,
after what was taken before has been pushed behind everything else. The order is that of one TopK, the lower index
first where values are equal. The one thing that is lost: from element 3841 on, infinities that come last (-inf, for
the largest) are in one class with the largest finite magnitude; which indices are returned for these two may swap.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype, scalar
from components.surgery.surgery import Change, Options, Surgery, label, refusal

MAX_K = 3840
"""Largest K that TensorRT builds."""
MAX_STEPS = 256
"""TopKs that one is taken apart into, at most: nearly a million elements, which no engine sorts in a useful time."""
_WHY = f"TensorRT builds no TopK with K above {MAX_K}"


def matches(graph: gs.Graph) -> bool:
    """Whether a TopK has a constant K that is too large."""
    return any(_is_long(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each by several."""
    found = [node for node in list(graph.nodes) if _is_long(node) and label(node) not in options.skip]
    return [_replace(graph, node) if _count(node) <= MAX_STEPS * MAX_K else _refuse(node) for node in found]


def _count(node: gs.Node) -> int:
    return int(scalar(node.inputs[1]) or 0)


def _refuse(node: gs.Node) -> Change:
    why = f"{_WHY}, and K = {_count(node)} would take more than {MAX_STEPS} of them"
    return refusal(node, why, f"choose K of at most {MAX_STEPS * MAX_K} when exporting")


def _is_long(node: gs.Node) -> bool:
    if node.op != "TopK" or len(node.inputs) < 2 or numpy_dtype(node.inputs[0]) is None:
        return False
    count = scalar(node.inputs[1])
    return count is not None and count > MAX_K


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    called, x, count = label(node), node.inputs[0], _count(node)
    axis, largest = int(node.attrs.get("axis", -1)), bool(node.attrs.get("largest", 1))
    dtype = numpy_dtype(x)
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/chunks")
    sizes = [min(MAX_K, count - start) for start in range(0, count, MAX_K)]
    last, next_to_last = _end_of_order(np.dtype(dtype), largest=largest)
    indices = [_top(emit, x, sizes[0], node)]
    rest = emit("Max" if largest else "Min", x, next_to_last, dtype=dtype)
    for size in sizes[1:]:
        shape = emit("Shape", indices[-1], dtype=np.int64)
        rest = emit(
            "ScatterElements", rest, indices[-1], emit("Expand", last, shape, dtype=dtype), dtype=dtype, axis=axis
        )
        indices.append(_top(emit, rest, size, node))
    every = emit("Concat", *indices, dtype=np.int64, axis=axis)
    # The values come from the input and not from what was clamped.
    values = emit("GatherElements", x, every, dtype=dtype, axis=axis)
    used = [tensor for tensor in node.outputs if tensor.outputs or any(tensor is other for other in graph.outputs)]
    for made, old in zip((values, every), list(node.outputs), strict=False):
        if any(old is tensor for tensor in used):
            emit.finish(made, old)
    what = f"K = {count} in {len(sizes)} steps of at most {MAX_K}"
    names = tuple(tensor.name for tensor in used)
    if node.attrs.get("sorted", 1):
        return Change(called, _WHY, what, inputs=(x.name,), outputs=names)
    what += "; sorted=0 leaves the order open, so it is not compared"
    return Change(called, _WHY, what, inputs=(x.name,), outputs=names, tolerance=np.inf)


def _top(emit: Emitter, x: gs.Tensor, size: int, node: gs.Node) -> gs.Variable:
    """The indices of a TopK with the attributes of `node`."""
    values = emit("TopK", x, np.array([size], np.int64), dtype=x.dtype, **node.attrs)
    top = values.inputs[0]
    top.outputs.append(gs.Variable(f"{top.name}:1", dtype=np.int64))
    indices: gs.Variable = top.outputs[1]
    return indices


def _end_of_order(dtype: np.dtype, *, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """The value that comes last of all, and the one before it."""
    if dtype.kind == "f":
        last = np.array(-np.inf if largest else np.inf, dtype)
        return last, np.array(np.finfo(dtype).min if largest else np.finfo(dtype).max, dtype)
    limits = np.iinfo(dtype)
    pair = (limits.min, limits.min + 1) if largest else (limits.max, limits.max - 1)
    return np.array(pair[0], dtype), np.array(pair[1], dtype)


SURGERY = Surgery(row=16, name="TopK with large K", thread="TensorRT #4244", matches=matches, apply=apply)
