"""Row 44: Scatter* with reduction="max", "min" or "mul" (scatter_reduce, amax): TensorRT has no reduction.

Under the table of which update goes to which place, everything else is hidden by the value that changes nothing, and
the extreme or the product over the updates is taken. Duplicates need no care. Memory: the whole table times the size
of a row; above 512 MiB the node is named and left.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype
from components.surgery.surgeries.scattering import (
    MAX_TABLE,
    NotScatterableError,
    describe,
    emit_combined,
    emit_table,
    neutral_of,
    reductions,
)
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_OPERATORS = {"max": "Max", "min": "Min", "mul": "Mul"}
_REDUCTIONS = {"max": "ReduceMax", "min": "ReduceMin", "mul": "ReduceProd"}
_WHY = "TensorRT's scatter has no reduction"
_WAY_OUT = "fix the shapes, or reduce over fewer places at a time (max-pool, or a mask and amax)"


def matches(graph: gs.Graph) -> bool:
    """Whether a scatter takes extremes or products."""
    return bool(reductions(graph, frozenset(_OPERATORS)))


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose sizes are known and whose table is not too large."""
    changes = []
    for node in reductions(graph, frozenset(_OPERATORS)):
        if label(node) in options.skip:
            continue
        try:
            changes.append(_replace(graph, node))
        except NotScatterableError as error:
            changes.append(refusal(node, f"{_WHY}; {error}", _WAY_OUT))
    return changes


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    scatter, dtype, kind = describe(node), numpy_dtype(node.inputs[0]), node.attrs["reduction"]
    if dtype is None or dtype.kind not in "fiu":
        raise NotScatterableError("it does not reduce numbers")
    size = scatter.table * (scatter.rest if scatter.rowwise else 1)
    if size > MAX_TABLE:
        raise NotScatterableError(
            f"{scatter.updates} updates of {scatter.places} places need a table of {4 * size / 2**20:.0f} MiB"
        )
    called, result, op = label(node), node.outputs[0], _OPERATORS[kind]
    emit = Emitter(graph, f"{called}/{kind}")
    hit, updates = emit_table(emit, scatter)
    if scatter.rowwise:
        hit = emit.reshape(hit, (scatter.places, scatter.updates, 1), dtype=bool)
        updates = emit.reshape(updates, (1, scatter.updates, scatter.rest), dtype=dtype)
    else:
        updates = emit.reshape(updates, (scatter.lanes, scatter.updates, 1), dtype=dtype)
    masked = emit("Where", hit, updates, np.array(neutral_of(op, dtype), dtype), dtype=dtype)
    change = emit.reduce(_REDUCTIONS[kind], masked, [1], keepdims=False, dtype=dtype)
    emit.finish(emit_combined(emit, scatter, op, change), result)
    what = f"{_REDUCTIONS[kind]} under a table of {scatter.places} places and {scatter.updates} updates"
    inputs = tuple(dict.fromkeys(tensor.name for tensor in node.inputs))
    return Change(called, _WHY, what, inputs=inputs, outputs=(result.name,))


SURGERY = Surgery(
    row=44,
    name="scatter with maximum, minimum or product",
    thread="TensorRT 'ScatterND with reduction is not supported'",
    matches=matches,
    apply=apply,
)
