"""Row 11: INT64_MAX and INT64_MIN as the ends of slices, which mean "to the end".

Exporters write ``x[1:]`` with an end of 9223372036854775807. TensorRT before version 10 has no INT64: it narrows
constants to INT32 with a warning, and some of its tools with a wrong sign. A bound of a Slice beyond INT32 means the
same as the largest INT32, so that is what it becomes, also behind the Concat or Where of a computed bound. A bound of
a Clip at the end of INT64 bounds nothing and goes. Other large integers are numbers and stay.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.surgery import Change, Options, Surgery, label
from components.surgery.ways import Way, way

_INT32, _INT64 = np.iinfo(np.int32), np.iinfo(np.int64)
_PASSES = frozenset(
    {"Concat", "Unsqueeze", "Squeeze", "Reshape", "Gather", "Where", "Identity", "Cast", "Slice", "Tile"}
)
_WHY = "an INT64 beyond INT32, which TensorRT before version 10 has to narrow"


def matches(graph: gs.Graph) -> bool:
    """Whether a constant bound is beyond INT32."""
    kept = {id(tensor) for tensor in graph.outputs}
    return any(_idle_bounds(node) or _bounds(node, kept) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Writes the bounds in INT32's range."""
    changes = []
    kept = {id(tensor) for tensor in graph.outputs}
    made: dict[int, gs.Constant] = {}
    for node in list(graph.nodes):
        if label(node) in options.skip:
            continue
        reads = tuple(t.name for t in node.inputs if isinstance(t, gs.Variable) and not t.is_empty())
        for place in _idle_bounds(node):
            node.inputs[place] = gs.Variable.empty()
            what = "a bound that bounds nothing is left out"
            changes.append(Change(label(node), _WHY, what, inputs=reads, outputs=(node.outputs[0].name,)))
        for place, route in _bounds(node, kept):
            given = node.inputs[place]
            if id(given) not in made:
                made[id(given)] = gs.Constant(f"{given.name}/within_int32", _cut(given.values))
            node.inputs[place] = made[id(given)]
            what = f"the ends of Slice are at most {_INT32.max}, which no dimension reaches"
            changes.append(Change(label(node), _WHY, what, inputs=route.inputs, outputs=route.outputs))
    return changes


def _cut(values: np.ndarray) -> np.ndarray:
    """Within INT32; its largest number stands for INT64's, since runtimes take both for "none"."""
    cut = np.clip(values, _INT32.min, _INT32.max - 1)
    return np.asarray(np.where(values == _INT64.max, _INT32.max, cut), np.int64)


def _beyond(tensor: gs.Tensor) -> bool:
    if numpy_dtype(tensor) != np.dtype(np.int64):
        return False
    values = constant(tensor)
    return values is not None and bool(((values > _INT32.max) | (values < _INT32.min)).any())


def _idle_bounds(node: gs.Node) -> list[int]:
    """Bounds of a Clip that every INT64 keeps."""
    if node.op != "Clip":
        return []
    limits = {1: _INT64.min, 2: _INT64.max}
    found = []
    for place, limit in limits.items():
        bound = optional_input(node, place)
        values = None if bound is None or numpy_dtype(bound) != np.dtype(np.int64) else constant(bound)
        if values is not None and values.size == 1 and values.reshape(()).item() == limit:
            found.append(place)
    return found


def _bounds(node: gs.Node, kept: set[int]) -> list[tuple[int, Way]]:
    """Inputs of the node that are beyond INT32 and only say where slices begin and end; and the way there."""
    if node.op not in _PASSES or len(node.outputs) != 1:
        return []
    if node.op == "Slice":
        places = [place for place in (1, 2) if len(node.inputs) > place and _beyond(node.inputs[place])]
        if places:
            return [(place, Way({}, {id(node): node})) for place in places]
    places = [place for place, tensor in enumerate(node.inputs) if _beyond(tensor)]
    if not places or (node.op in ("Gather", "Slice", "Unsqueeze", "Squeeze", "Reshape", "Tile") and places != [0]):
        return []
    route = way(node, kept, lambda other: other.op in _PASSES, _is_bound)
    return [] if route is None else [(place, route) for place in places]


def _is_bound(node: gs.Node, tensor: gs.Tensor) -> bool:
    return node.op == "Slice" and any(tensor is bound for bound in node.inputs[1:3])


SURGERY = Surgery(
    row=11,
    name="INT64 sentinels",
    thread="TensorRT: INT64 weights are cast down to INT32",
    matches=matches,
    apply=apply,
)
