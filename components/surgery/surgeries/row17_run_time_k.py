"""Row 17: TopK whose K is computed at run time, mostly ``min(1000, number of boxes)``, though the shapes tell it.

TensorRT before 10 wants a constant K. What K is computed from is run for several sizes of the dimensions that are
open: a K that stays the same is a constant. A K that follows an open dimension, or the data, is left: TensorRT 10 and
TensorRT-RTX take it, and row 40 fixes the dimension.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.graphs import constant, has_subgraphs
from components.surgery.surgery import Change, Options, Surgery, label

_MAX_NODES = 64
"""Nodes that K may be computed by."""
_SIZES = ((1, 2, 3, 5, 7), (11, 13, 17, 19, 23), (100_003, 100_019, 100_043, 100_049, 100_057))
"""Sizes tried for open dimensions: different ones at a time, so that nothing cancels by chance."""
_WHY = "TensorRT before 10 wants a constant K"


class _UnknownError(Exception):
    """K depends on more than shapes."""


def matches(graph: gs.Graph) -> bool:
    """Whether a TopK computes its K."""
    return any(_is_open(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Makes each K constant that is one."""
    changes = []
    for node in [node for node in graph.nodes if _is_open(node) and label(node) not in options.skip]:
        count = _constant_k(graph, node)
        if count is None:
            continue
        outputs = tuple(tensor.name for tensor in node.outputs if tensor.name)
        name = f"{label(node)}/k"
        node.inputs[1] = gs.Constant(name, np.array([count], np.int64))
        what = f"K is {count}, whatever the open dimensions are"
        changes.append(Change(label(node), _WHY, what, inputs=(node.inputs[0].name,), outputs=outputs))
    return changes


def _is_open(node: gs.Node) -> bool:
    return node.op == "TopK" and len(node.inputs) == 2 and constant(node.inputs[1]) is None


def _constant_k(graph: gs.Graph, node: gs.Node) -> int | None:
    try:
        found = {int(_value(graph, node.inputs[1], sizes).reshape(())) for sizes in _SIZES}
    except (_UnknownError, EvaluationError, ValueError):
        return None
    return found.pop() if len(found) == 1 else None


def _value(graph: gs.Graph, wanted: gs.Tensor, sizes: Sequence[int]) -> np.ndarray:
    """What a tensor is when the open dimensions have these sizes."""
    values: dict[int, np.ndarray | None] = {}
    given: dict[str, int] = {}
    for node in _makers(wanted):
        if node.op == "Shape" and constant(node.inputs[0]) is None:
            made: list[np.ndarray | None] = [_shape(node, given, sizes)]
        else:
            made = run_node(node, [_known(tensor, values) for tensor in node.inputs], graph)
        values |= {id(tensor): value for tensor, value in zip(node.outputs, made, strict=True)}
    value = values.get(id(wanted))
    if value is None:
        raise _UnknownError
    return value


def _makers(wanted: gs.Tensor) -> Iterator[gs.Node]:
    """The nodes that make a tensor from shapes and constants, in the order to run them in."""
    order: list[gs.Node] = []
    waiting, seen = [(wanted, False)], set()
    while waiting:
        tensor, ready = waiting.pop()
        if not tensor.inputs:
            raise _UnknownError
        node = tensor.inputs[0]
        if ready:
            order.append(node)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        if len(seen) > _MAX_NODES or has_subgraphs(node):
            raise _UnknownError
        waiting.append((tensor, True))
        if node.op != "Shape":
            waiting += [(x, False) for x in node.inputs if not x.is_empty() and constant(x) is None]
    yield from order


def _shape(node: gs.Node, given: dict[str, int], sizes: Sequence[int]) -> np.ndarray:
    shape = node.inputs[0].shape
    if shape is None:
        raise _UnknownError
    known = []
    for place, size in enumerate(shape):
        if isinstance(size, int | np.integer):
            known.append(int(size))
            continue
        name = size if isinstance(size, str) else f"{node.inputs[0].name}/{place}"
        if name not in given and len(given) == len(sizes):
            raise _UnknownError
        known.append(given.setdefault(name, sizes[len(given) % len(sizes)]))
    return np.array(known, np.int64)[node.attrs.get("start", 0) : node.attrs.get("end", len(known))]


def _known(tensor: gs.Tensor, values: dict[int, np.ndarray | None]) -> np.ndarray | None:
    if tensor.is_empty():
        return None
    value = constant(tensor)
    return values[id(tensor)] if value is None else value


SURGERY = Surgery(
    row=17,
    name="TopK with run-time K",
    thread="TensorRT 'This version of TensorRT only supports input K as an initializer'",
    matches=matches,
    apply=apply,
)
