"""Row 20: Scatter* with reduction="add" (index_add, scatter_add, accumulating index_put): TensorRT has no reduction.

Which update goes to which place is a table of zeros and ones; the sums are one MatMul with it, and duplicates add up
by themselves. Integers, which TensorRT does not multiply as matrices, are summed under the table. The sums are
taken in another order than ONNX Runtime's, and an update that is not finite makes every place of its column NaN.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype
from components.surgery.surgeries.scattering import (
    MAX_TABLE,
    NotScatterableError,
    Scatter,
    describe,
    emit_combined,
    emit_table,
    reductions,
)
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_KINDS = frozenset({"add"})
_WHY = "TensorRT's scatter has no reduction"
_WAY_OUT = "fix the shapes, or sum over fewer places at a time"


def matches(graph: gs.Graph) -> bool:
    """Whether a scatter adds."""
    return bool(reductions(graph, _KINDS))


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose sizes are known and whose table is not too large."""
    changes = []
    for node in reductions(graph, _KINDS):
        if label(node) in options.skip:
            continue
        try:
            changes.append(_replace(graph, node))
        except NotScatterableError as error:
            changes.append(refusal(node, f"{_WHY}; {error}", _WAY_OUT))
    return changes


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    scatter, dtype = describe(node), numpy_dtype(node.inputs[0])
    if dtype is None or dtype.kind not in "fiu":
        raise NotScatterableError("it does not add numbers")
    floats = dtype.kind == "f"
    size = scatter.table * (1 if floats or not scatter.rowwise else scatter.rest)
    if size > MAX_TABLE:
        raise NotScatterableError(
            f"{scatter.updates} updates of {scatter.places} places need a table of {4 * size / 2**20:.0f} MiB"
        )
    called, result = label(node), node.outputs[0]
    emit = Emitter(graph, f"{called}/sum")
    change = _by_matmul(emit, scatter, dtype) if floats else _by_sum(emit, scatter, dtype)
    emit.finish(emit_combined(emit, scatter, "Add", change), result)
    how = "MatMul with" if floats else "sum under"
    what = f"{how} a table of {scatter.places} places and {scatter.updates} updates"
    inputs = tuple(dict.fromkeys(tensor.name for tensor in node.inputs))
    return Change(called, _WHY, what, inputs=inputs, outputs=(result.name,))


def _by_matmul(emit: Emitter, scatter: Scatter, dtype: np.dtype) -> gs.Variable:
    hit, updates = emit_table(emit, scatter)
    table = emit.cast(hit, dtype)
    if scatter.rowwise:
        return emit("MatMul", table, updates, dtype=dtype)
    row = emit.reshape(updates, (scatter.lanes, 1, scatter.updates), dtype=dtype)
    return emit("MatMul", row, table, dtype=dtype)


def _by_sum(emit: Emitter, scatter: Scatter, dtype: np.dtype) -> gs.Variable:
    hit, updates = emit_table(emit, scatter)
    if scatter.rowwise:
        hit = emit.reshape(hit, (scatter.places, scatter.updates, 1), dtype=bool)
        updates = emit.reshape(updates, (1, scatter.updates, scatter.rest), dtype=dtype)
    else:
        updates = emit.reshape(updates, (scatter.lanes, scatter.updates, 1), dtype=dtype)
    chosen = emit("Where", hit, updates, np.array(0, dtype), dtype=dtype)
    return emit.reduce("ReduceSum", chosen, [1], keepdims=False, dtype=dtype)


SURGERY = Surgery(
    row=20,
    name="scatter with addition",
    thread="TensorRT 'ScatterND with reduction is not supported'",
    matches=matches,
    apply=apply,
)
