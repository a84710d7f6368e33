"""What a tensor computed from another one's shape comes to, found by running its subgraph on several shapes."""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.graphs import constant, has_subgraphs, numpy_dtype

_PROBES = ((1, 37, 53), (2, 64, 96), (3, 51, 20), (1, 7, 11), (5, 16, 9), (2, 101, 255))
"""Batch and two sides: odd and even, so that a rounded multiple does not pass for an exact one."""
_MAX_NODES = 64
_MAX_ANCESTORS = 256


def probe(given: gs.Tensor, x: gs.Tensor, graph: gs.Graph) -> list[tuple[tuple[int, ...], np.ndarray]] | None:
    """Values of `given` for several shapes of `x`.

    Args:
        given: a constant, or computed from the shape of `x`.
        x: of known rank; its fixed dimensions stay as they are.
        graph: that both belong to.

    Returns:
        Pairs of a shape of `x` and the value; or None where `given` depends on more than that shape.
    """
    if x.shape is None:
        return None
    found = []
    for sizes in _PROBES:
        shape = _probe_shape(x.shape, sizes)
        try:
            found.append((shape, _evaluate(given, x, shape, graph, {}, [_MAX_NODES])))
        except EvaluationError:
            return None
    return found


def float_source(tensor: gs.Tensor) -> str | None:
    """The floats, or values of unknown making, that a tensor is computed from; None: only shapes and integer inputs.

    The shapes of an engine can depend on the latter only.
    """
    waiting, seen = [tensor], set()
    while waiting:
        tensor = waiting.pop()
        if isinstance(tensor, gs.Constant) or tensor.is_empty() or tensor.name in seen:
            continue
        seen.add(tensor.name)
        dtype = numpy_dtype(tensor)
        if not tensor.inputs:
            if dtype is None or dtype.kind not in "iu":
                return str(tensor.name)
            continue
        node = tensor.inputs[0]
        if has_subgraphs(node) or len(seen) > _MAX_ANCESTORS:
            return str(tensor.name)
        if node.op not in ("Shape", "Size"):
            waiting.extend(node.inputs)
    return None


def _probe_shape(shape: Sequence[object], probe: tuple[int, int, int]) -> tuple[int, ...]:
    sizes = (probe[0], 4, *(probe[1:] * len(shape)))
    return tuple(
        int(size) if isinstance(size, int | np.integer) else sizes[position] for position, size in enumerate(shape)
    )


def _evaluate(
    tensor: gs.Tensor,
    x: gs.Tensor,
    shape: tuple[int, ...],
    graph: gs.Graph,
    known: dict[str, np.ndarray],
    left: list[int],
) -> np.ndarray:
    """Runs what leads from the shape of `x` to `tensor`."""
    values = constant(tensor)
    if values is not None:
        return values
    if tensor.name in known:
        return known[tensor.name]
    if not tensor.inputs:
        raise EvaluationError(f"{tensor.name} depends on the values of an input")
    node = tensor.inputs[0]
    left[0] -= 1
    if left[0] < 0 or has_subgraphs(node) or not node.inputs:
        raise EvaluationError(f"{tensor.name} is more than shape arithmetic")
    if node.op == "Shape":
        if node.inputs[0] is not x and not _same_shape(node.inputs[0], x):
            raise EvaluationError(f"{tensor.name} depends on another shape")
        return np.array(shape, np.int64)[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
    inputs = [None if i.is_empty() else _evaluate(i, x, shape, graph, known, left) for i in node.inputs]
    for output, value in zip(node.outputs, run_node(node, inputs, graph), strict=True):
        if value is not None:
            known[output.name] = value
    return known[tensor.name]


def _same_shape(a: gs.Tensor, b: gs.Tensor) -> bool:
    """Whether both shapes are known to be equal: numbers, or dimensions of one name."""
    return a.shape is not None and a.shape == b.shape and None not in a.shape
