"""Row 9: UINT8 inside the graph, as in ``(x > 0).byte()`` or ``mask.to(uint8)``.

"TensorRT does not support UINT8 types for intermediate tensors." Masks that only move and end in floats or booleans
become floats (BOOL -> FLOAT); what counts becomes INT32, wrapped to 0..255 where it may leave that. A quantizer's
integers are not meant here but in rows 25 and 27.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.retype import any_unsettled, border, regions, settled
from components.surgery.surgeries.small_integers import is_quantized, widen
from components.surgery.surgery import Change, Options, Surgery

_UINT8 = np.dtype(np.uint8)


def matches(graph: gs.Graph) -> bool:
    """Whether a UINT8 tensor is neither input nor output."""
    return any_unsettled(graph, [_UINT8])


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Widens all that hangs together and no input of the graph enters."""
    changes = []
    shared = border(graph)
    inputs = {id(tensor) for tensor in graph.inputs}
    for region in regions(graph, _UINT8):
        entered = any(id(tensor) in inputs for tensor in region.variables)
        if entered or settled(region, shared) or is_quantized(region) or region.label in options.skip:
            continue
        why = "TensorRT has UINT8 for inputs and outputs only"
        changes.append(widen(graph, region, shared, why, interface=False))
    return changes


SURGERY = Surgery(
    row=9,
    name="UINT8 inside the graph",
    thread="onnx-tensorrt: legalUINT8",
    matches=matches,
    apply=apply,
)
