"""Row 43: ``x[mask] = value`` as torch's dynamo exporter writes it: NonZero, Transpose, ScatterND.

The value is one number, or one row that goes to every selected place, so no index is needed: it is a Where. Shapes may
be open. Values that differ from place to place (``x[mask] = f(x[mask])``) are row 15's.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype, static_shape
from components.surgery.surgery import Change, Options, Surgery, label

_WHY = "the number of written places depends on the data, and TensorRT-RTX has no NonZero"


def matches(graph: gs.Graph) -> bool:
    """Whether a scatter writes one value where a mask is true."""
    return any(_masked(node) is not None for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each by a choice."""
    found = [(node, _masked(node)) for node in graph.nodes if label(node) not in options.skip]
    return [_replace(graph, node, *pair) for node, pair in found if pair is not None]


def _masked(node: gs.Node) -> tuple[gs.Tensor, gs.Tensor] | None:
    """Mask and value of a masked write."""
    if node.op != "ScatterND" or node.attrs.get("reduction", "none") not in ("none", b"none"):
        return None
    mask, value = _mask_of(node.inputs[1]), _source(node.inputs[2])
    x = node.inputs[0]
    if mask is None or mask.shape is None or x.shape is None or numpy_dtype(mask) is None:
        return None
    shape = static_shape(value)
    if shape is None or value is node.inputs[2]:
        return None
    varying = _trimmed(shape)
    if not varying:
        return mask, value
    rest = list(x.shape[len(mask.shape) :])
    if rest:
        fits = len(varying) <= len(rest) and all(a in (1, b) for a, b in zip(varying[::-1], rest[::-1], strict=False))
        return (mask, value) if fits else None
    return (mask, value) if _constant_along(mask, len(varying)) and list(x.shape[-len(varying) :]) == varying else None


def _replace(graph: gs.Graph, node: gs.Node, mask: gs.Tensor, value: gs.Tensor) -> Change:
    called, x, result = label(node), node.inputs[0], node.outputs[0]
    emit = Emitter(graph, f"{called}/choice")
    inputs = tuple(dict.fromkeys(tensor.name for tensor in (mask, value, x)))
    where = mask if mask.dtype == np.bool_ else emit.cast(mask, bool)
    missing = len(x.shape) - len(mask.shape)
    if missing:
        axes = np.arange(len(mask.shape), len(x.shape), dtype=np.int64)
        where = emit("Unsqueeze", where, axes, dtype=bool)
    shape = static_shape(value) or ()
    if len(_trimmed(shape)) != len(shape):
        value = emit.reshape(value, _trimmed(shape), dtype=x.dtype)
    if x.dtype == np.bool_:
        # ONNX Runtime has no Where of booleans.
        others = emit("And", emit("Not", where, dtype=bool), x, dtype=bool)
        made = emit("Or", emit("And", where, value, dtype=bool), others, dtype=bool)
    else:
        made = emit("Where", where, value, x, dtype=x.dtype)
    emit.finish(made, result)
    return Change(called, _WHY, "one value for every place of a mask: a choice", inputs=inputs, outputs=(result.name,))


def _mask_of(indices: gs.Tensor) -> gs.Tensor | None:
    """The mask whose places the indices are."""
    while indices.inputs and indices.inputs[0].op == "Identity":
        indices = indices.inputs[0].inputs[0]
    transpose = indices.inputs[0] if indices.inputs else None
    if transpose is None or transpose.op != "Transpose" or list(transpose.attrs.get("perm", [1, 0])) != [1, 0]:
        return None
    places = transpose.inputs[0]
    if not places.inputs or places.inputs[0].op != "NonZero":
        return None
    mask: gs.Tensor = places.inputs[0].inputs[0]
    return mask


def _source(updates: gs.Tensor) -> gs.Tensor:
    """The tensor that the updates repeat."""
    while updates.inputs and updates.inputs[0].op in ("Reshape", "Expand", "Identity"):
        updates = updates.inputs[0].inputs[0]
    return updates


def _trimmed(shape: Sequence[int]) -> list[int]:
    """A shape without leading ones."""
    first = next((place for place, size in enumerate(shape) if size != 1), len(shape))
    return list(shape[first:])


def _constant_along(mask: gs.Tensor, count: int) -> bool:
    """Whether a mask is known to repeat along its last axes."""
    if not mask.inputs or mask.inputs[0].op != "Expand":
        return False
    source = mask.inputs[0].inputs[0]
    shape = source.shape
    return shape is not None and len(shape) == len(mask.shape) and all(size == 1 for size in shape[-count:])


SURGERY = Surgery(
    row=43, name="masked write of the dynamo exporter", thread="TensorRT #559, #3372", matches=matches, apply=apply
)
