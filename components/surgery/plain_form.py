"""The form of a model that surgeries work on: local functions and sparse values written out, a name for each node.

All are of row 41. They come before everything else, since no surgery looks into a function, and since ONNX Runtime,
which the proof asks, runs no graph in which two nodes have one name.
"""

from itertools import chain, count

import onnx
import onnx.inliner

from components.surgery.diagnosis.nodes import bodies, inside, places
from components.surgery.graphs import infer_shapes
from components.surgery.sparse_values import without_sparse_values
from components.surgery.surgery import Change
from components.surgery.weights import copy_but

_NAMED = 3
"""Names that a report lists."""


def plain_form(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Change]]:
    """The model in that form, and what was done for it.

    Args:
        model: it is not changed; large weights may be references into a store.

    Returns:
        The given model itself and no change, where it has that form.
    """
    changes = []
    written = without_functions(model)
    if written is not model:
        called = ", ".join(sorted(calls(model))[:_NAMED])
        why = "no surgery looks into a function of the model's own, and not every runtime has them"
        changes.append(Change("model functions", why, f"{len(calls(model))} functions written out: {called}"))
    written, sparse = without_sparse_values(written)
    if sparse:
        why = "no surgery looks into values that are stored sparse, and TensorRT does not read them"
        what = f"the values of {len(sparse)} tensors are stored in full: {', '.join(sorted(sparse)[:_NAMED])}"
        changes.append(Change("sparse values", why, what))
    taken = _repeated(written.graph)
    if taken:
        written = _renamed(written)
        listed = ", ".join(sorted(taken)[:_NAMED])
        why = "ONNX Runtime refuses a graph in which two nodes have one name"
        changes.append(Change("node names", why, f"the nodes of {len(taken)} names got names of their own: {listed}"))
    return written, changes


def calls(model: onnx.ModelProto) -> set[str]:
    """Names of the model's functions that its nodes call."""
    known = {(function.domain, function.name) for function in model.functions}
    return {place.node.op_type for place in places(model) if (place.node.domain, place.node.op_type) in known}


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions written out; the model itself where none is called or onnx cannot do it."""
    if not model.functions or not calls(model) or _is_endless(model):
        return model
    try:
        # A function of another opset is converted, for which the types around its call must be known.
        written: onnx.ModelProto = onnx.inliner.inline_local_functions(infer_shapes(model), convert_version=True)
    except Exception:  # of a damaged file, which others judge
        return model
    return model if calls(written) else written


def _is_endless(model: onnx.ModelProto) -> bool:
    """Whether a function calls itself, by way of others perhaps; onnx would write it out for ever."""
    called = {
        (function.domain, function.name): {
            (node.domain, node.op_type) for top in function.node for node in (top, *inside(top))
        }
        for function in model.functions
    }
    while leaves := [name for name, others in called.items() if others.isdisjoint(called)]:
        for name in leaves:
            del called[name]
    return bool(called)


def _repeated(graph: onnx.GraphProto) -> set[str]:
    """Names that more than one node of a graph has; bodies are graphs of their own."""
    seen: set[str] = set()
    repeated: set[str] = set()
    for node in graph.node:
        if node.name in seen:
            repeated.add(node.name)
        if node.name:
            seen.add(node.name)
        for body in bodies(node):
            repeated |= _repeated(body)
    return repeated


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    renamed = onnx.ModelProto()
    copy_but(model, renamed, [])
    taken = {place.node.name for place in places(renamed)}
    waiting = [renamed.graph]
    while waiting:
        seen: set[str] = set()
        for node in waiting.pop().node:
            waiting += bodies(node)
            if node.name in seen:
                # Its output is unique by the rules of ONNX, so the name means something to the reader of a report.
                wanted = f"{node.name}_{node.output[0] if node.output else node.op_type}"
                node.name = _free(wanted, taken)
                taken.add(node.name)
            if node.name:
                seen.add(node.name)
    return renamed


def _free(name: str, taken: set[str]) -> str:
    numbered = (f"{name}_{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)
