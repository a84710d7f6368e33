"""Row 15: NonZero and what becomes of it, boolean indexing (TensorRT #559, #3372).

A constant mask is folded by row 0. The shape of everything else depends on the data:

* all ones (``NonZero(ConstantOfShape(...))``, how exporters write ``arange``) is a Range;
* indices that end in a scatter (``x[mask] = ...``) or in a sum, maximum, ... over the rows (``x[mask].sum()``) are
  replaced by all indices, and the mask is applied at the end: exact, also where nothing is selected;
* rows that leave the graph get a fixed number: the real ones first, then the last of them again, and a new output says
  how many are real;
* everything else is refused with the reason, since any fixed size would change its numbers.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.dynamic_rows import NotStaticError, Study, check_prefixes, lift, selections, study
from components.surgery.emit import Emitter
from components.surgery.graphs import scalar, static_shape
from components.surgery.surgeries.greedy_nms import emit_compact
from components.surgery.surgery import Change, Options, Surgery, label, refusal

MAX_MASK = 2**18
"""Elements of a mask up to which the list of all indices goes into the model."""
_WHY = "the number of indices depends on the data, and TensorRT-RTX has no NonZero"
_WAY_OUT = "multiply by the mask or use torch.where in the model instead of x[mask], or run it on a CPU runtime"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a NonZero."""
    return any(node.op == "NonZero" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each where that changes no number."""
    changes = _merge(graph, options)
    if changes:
        return changes
    for node in [node for node in graph.nodes if node.op == "NonZero" and label(node) not in options.skip]:
        try:
            changes.append(_range(graph, node) or _replace(graph, node))
        except NotStaticError as error:
            changes.append(refusal(node, str(error), _WAY_OUT))
    return changes


def _merge(graph: gs.Graph, options: Options) -> list[Change]:
    """Makes one NonZero of several of the same mask, as exporters write them for ``x[mask] = f(x[mask])``."""
    first: dict[str, gs.Node] = {}
    changes = []
    for node in graph.nodes:
        if node.op != "NonZero" or label(node) in options.skip:
            continue
        mask = _same_mask(node.inputs[0])
        other = first.setdefault(mask.name, node)
        if other is node:
            continue
        for reader in list(node.outputs[0].outputs):
            reader.inputs = [other.outputs[0] if tensor is node.outputs[0] else tensor for tensor in reader.inputs]
        if any(tensor is node.outputs[0] for tensor in graph.outputs):
            continue
        why = "several indices of one mask have to be made static together"
        changes.append(Change(label(node), why, f"merged with {label(other)}, which has the same mask"))
    return changes


def _same_mask(mask: gs.Tensor) -> gs.Tensor:
    """The tensor that a mask is an unchanged copy of: through Identity and an Expand to its own shape."""
    while mask.inputs and mask.inputs[0].op in ("Identity", "Expand"):
        source = mask.inputs[0].inputs[0]
        shape = static_shape(source)
        if mask.inputs[0].op == "Expand" and (shape is None or shape != static_shape(mask)):
            break
        mask = source
    return mask


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


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    graph.toposort()
    mask, indices = node.inputs[0], node.outputs[0]
    shape = static_shape(mask)
    if shape is None or not shape or math.prod(shape) == 0:
        raise NotStaticError("the shape of its mask is not fixed")
    count = math.prod(shape)
    if count > MAX_MASK:
        raise NotStaticError(f"its mask has {count} elements, more than {MAX_MASK}")
    every = np.indices(shape, np.int64).reshape(len(shape), -1)
    picked = selections(count, ordered=True)
    found = study(graph, indices, every, 1, picked)
    emit = Emitter(graph, f"{node.name or indices.name}/static")
    if found.outputs:
        padded = [np.r_[chosen, np.full(count - len(chosen), chosen[-1])] for chosen in picked]
        check_prefixes(graph, found, padded)
        return _pad(graph, node, every, found, emit)
    before, ends_before = len(graph.nodes), found.borders
    try:
        keep = emit.reshape(_as_bool(emit, mask), (-1,), dtype=bool)
        ends = lift(found, emit.constant(every), keep, emit)
    except NotStaticError:
        del graph.nodes[before:]
        raise
    inputs = (mask.name, *(tensor.name for tensor in found.statics))
    what = f"all {count} indices, masked at the end: {'; '.join(ends)}"
    return Change(label(node), _WHY, what, inputs=tuple(dict.fromkeys(inputs)), outputs=ends_before)


def _pad(graph: gs.Graph, node: gs.Node, every: np.ndarray, found: Study, emit: Emitter) -> Change:
    mask, indices = node.inputs[0], node.outputs[0]
    count = every.shape[1]
    flags = emit.cast(emit.reshape(_as_bool(emit, mask), (-1,), dtype=bool), np.int64)
    selected, number = emit_compact(emit, flags, emit.constant(np.arange(count)), count)
    last = emit(
        "Max", emit("Sub", number, np.array(1, np.int64), dtype=np.int64), np.array(0, np.int64), dtype=np.int64
    )
    position = emit("Min", np.arange(count), last, dtype=np.int64)
    flat = emit("Gather", selected, position, dtype=np.int64, axis=0)
    emit.finish(emit("Gather", every, flat, dtype=np.int64, axis=1), indices)
    number.name, number.shape = f"{indices.name}_rows", (1,)
    graph.outputs.append(number)
    for tensor in found.outputs:
        tensor.shape = [None] * found.full[tensor.name].ndim
    names = tuple(tensor.name for tensor in found.outputs)
    what = (
        f"{', '.join(names)} now have {count} rows: the real ones first, then the last again; output {number.name} "
        "says how many are real"
    )
    return Change(label(node), _WHY, what, padded=names)


def _as_bool(emit: Emitter, mask: gs.Tensor) -> gs.Tensor:
    return mask if mask.dtype == np.bool_ else emit.cast(mask, bool)


SURGERY = Surgery(row=15, name="NonZero, boolean index", thread="TensorRT #559, #3372", matches=matches, apply=apply)
