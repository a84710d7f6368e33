"""Row 40: input dimensions that the exporter left open.

TensorRT builds an engine for open dimensions from an optimization profile, which the engine step makes of the job's
input shape, smallest, usual and largest alike. So the dimension is as good as fixed, and the rows that need known
sizes (12, 15, 16, 20 ...) fail for nothing. Where `Options.input_shapes` gives a shape, the input is pinned to it, with
every other input dimension of the same name. Without one nothing is done.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import is_open
from components.surgery.sorting import is_body
from components.surgery.surgery import Change, Options, Outcome, Surgery

_WHY = "open dimensions hide sizes from the other surgeries, and the engine has one size only"


def matches(graph: gs.Graph) -> bool:
    """Whether an input of the model has an open dimension."""
    return not is_body(graph) and any(is_open(tensor) for tensor in graph.inputs)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Pins what shapes are given for."""
    changes: list[Change] = []
    names: dict[str, int] = {}
    for tensor in graph.inputs:
        if not is_open(tensor) or tensor.name in options.skip:
            continue
        named = tensor.name in options.input_shapes
        given = options.input_shapes[tensor.name if named else ""] if named or "" in options.input_shapes else None
        if given is None or (not named and not _fits(tensor.shape, given)):
            continue
        if not _fits(tensor.shape, given):
            what = f"give a shape like {list(tensor.shape)}"
            why = f"the input is {list(tensor.shape)}, which the shape {list(given)} does not fit"
            changes.append(Change(tensor.name, why, what, outcome=Outcome.REFUSED))
            continue
        pinned = {side: size for side, size in zip(tensor.shape, given, strict=True) if isinstance(side, str)}
        names |= {name: size for name, size in pinned.items() if not name.startswith("unk__")}
        tensor.shape = list(given)
        changes.append(Change(tensor.name, _WHY, f"pinned to {list(given)}"))
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.shape is not None:
            tensor.shape = [names.get(side, side) if isinstance(side, str) else side for side in tensor.shape]
    return changes


def _fits(shape: Sequence[object], given: Sequence[int]) -> bool:
    fixed = (int, np.integer)
    same = all(not isinstance(side, fixed) or side == size for side, size in zip(shape, given, strict=False))
    return len(shape) == len(given) and same and all(size > 0 for size in given)


SURGERY = Surgery(
    row=40,
    name="open input dimensions",
    thread="TensorRT 'Network has dynamic or shape inputs, but no optimization profile has been defined'",
    matches=matches,
    apply=apply,
)
