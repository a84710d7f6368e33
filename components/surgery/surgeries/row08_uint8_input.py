"""Row 8: a UINT8 graph input, such as an image straight from the decoder.

TensorRT takes UINT8 at the border of the graph when a Cast is the first to read it, and nothing else ("first input has
type UInt8 but must have type Float, ..."). So the input keeps its type, the Cast comes first, and what came before it
(transpose, crop, resize by nearest, ...) moves floats.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.retype import any_unsettled, border, regions, settled
from components.surgery.surgeries.small_integers import is_quantized, widen
from components.surgery.surgery import Change, Options, Surgery

_UINT8 = np.dtype(np.uint8)


def matches(graph: gs.Graph) -> bool:
    """Whether something else than a Cast reads a UINT8 input."""
    typed = any(tensor.dtype == _UINT8 for tensor in graph.inputs)
    return typed and any_unsettled(graph, [_UINT8])


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Puts the Cast first."""
    changes = []
    shared = border(graph)
    inputs = {id(tensor) for tensor in graph.inputs}
    for region in regions(graph, _UINT8):
        entered = any(id(tensor) in inputs for tensor in region.variables)
        if not entered or settled(region, shared) or is_quantized(region) or region.label in options.skip:
            continue
        why = "TensorRT reads a UINT8 input by a Cast only"
        changes.append(widen(graph, region, shared, why, interface=False))
    return changes


SURGERY = Surgery(
    row=8,
    name="UINT8 input",
    thread="TensorRT's operator support: UINT8 at the border only",
    matches=matches,
    apply=apply,
)
