"""Row 15: NonZero and what becomes of it, boolean indexing (TensorRT #559, #3372).

A constant mask is folded by row 0. For any other, every element of the mask is a row, and those that are not selected
are padding (`static_rows`):

* what ends in a scatter (``x[mask] = ...``) or in a sum, maximum, ... over the rows (``x[mask].sum()``) skips the
  padding there, and nothing else of the model changes;
* rows that leave the graph get a fixed number: the real ones first, then the first of them again, and a new output says
  how many are real;
* all ones (``NonZero(ConstantOfShape([n]))``, how exporters write ``arange``) is a Range;
* a node with no rule for padding leaves everything as it is, and is named.

Where a NonMaxSuppression follows or precedes, row 12 does it all.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import scalar
from components.surgery.static_rows.rewrite import make_static
from components.surgery.surgery import Change, Options, Surgery, label

_WHY = "the number of indices depends on the data, and TensorRT-RTX has no NonZero"
_WAY_OUT = "multiply by the mask or use torch.where in the model instead of x[mask], or run it on a CPU runtime"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a NonZero."""
    return any(node.op == "NonZero" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each, with all that follows it."""
    nodes = [node for node in graph.nodes if node.op == "NonZero" and label(node) not in options.skip]
    ranges = [change for change in (_range(graph, node) for node in nodes) if change is not None]
    return ranges or make_static(graph, options, _only_masks, _WHY, _WAY_OUT)


def _range(graph: gs.Graph, node: gs.Node) -> Change | None:
    """``NonZero(ConstantOfShape([n]))`` -> ``Range(0, n)``."""
    mask = node.inputs[0]
    maker = mask.inputs[0] if mask.inputs else None
    if maker is None or maker.op != "ConstantOfShape" or "value" not in maker.attrs:
        return None
    shape = maker.inputs[0]
    if not scalar(maker.attrs["value"]) or shape.shape is None or tuple(shape.shape) != (1,):
        return None
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/range")
    result = node.outputs[0]
    size = emit.reshape(shape, (), dtype=np.int64)
    numbers = emit("Range", np.array(0, np.int64), size, np.array(1, np.int64), dtype=np.int64)
    emit.finish(emit.reshape(numbers, (1, -1), dtype=np.int64), result)
    return Change(label(node), "TensorRT-RTX has no NonZero", "the mask is all ones, so the indices are a Range")


def _only_masks(sources: Collection[str]) -> bool:
    return set(sources) == {"NonZero"}


SURGERY = Surgery(row=15, name="NonZero, boolean index", thread="TensorRT #559, #3372", matches=matches, apply=apply)
