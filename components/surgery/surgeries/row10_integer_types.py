"""Row 10: INT16, UINT16, UINT32 and UINT64, mostly as casts that an exporter or a NumPy habit left behind.

TensorRT has INT8, INT32 and INT64: "Unsupported data type for the Cast operator!". Types of 16 bits become INT32 (or
floats, where they only move towards floats), the larger ones INT64, which holds every UINT32. Results that would have
wrapped around still do. An input or output of such a type cannot be read at all, so the caller's type changes, and the
report says to what.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.retype import any_unsettled, border, regions
from components.surgery.surgeries.small_integers import is_quantized, widen
from components.surgery.surgery import Change, Options, Surgery

_DTYPES = tuple(np.dtype(dtype) for dtype in (np.int16, np.uint16, np.uint32, np.uint64))


def matches(graph: gs.Graph) -> bool:
    """Whether a tensor has such a type."""
    return any_unsettled(graph, _DTYPES) or any(tensor.dtype in _DTYPES for tensor in (*graph.inputs, *graph.outputs))


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Widens all that hangs together."""
    changes = []
    for dtype in _DTYPES:
        shared = border(graph)
        for region in regions(graph, dtype):
            if is_quantized(region) or region.label in options.skip:
                continue
            why = f"TensorRT has no {dtype}"
            changes.append(widen(graph, region, shared, why, interface=True))
    return changes


SURGERY = Surgery(
    row=10,
    name="integer types",
    thread="onnx-tensorrt: unsupported data type for Cast",
    matches=matches,
    apply=apply,
)
