"""Row 7: FLOAT64 anywhere (onnx-tensorrt #615).

TensorRT has no float64: its parser narrows weights and inputs to FP32, clamps what does not fit and says so in a
warning that few read; other versions refuse. Here the narrowing is in the file, where it can be compared. Inputs and
outputs keep the caller's type behind a Cast, which TensorRT accepts; its engine takes and gives FP32 there.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.retype import any_unsettled, border, outside, regions, retype, settled
from components.surgery.surgery import Change, Options, Surgery

_DOUBLE, _FLOAT = np.dtype(np.float64), np.dtype(np.float32)
_TOLERANCE = 1e-4
"""Float32 keeps 7 digits of each operation's result; a chain of them somewhat less."""


def matches(graph: gs.Graph) -> bool:
    """Whether anything but casts of inputs and outputs is float64."""
    return any_unsettled(graph, [_DOUBLE])


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Narrows every part of the graph that is float64."""
    changes = []
    shared = border(graph)
    for region in regions(graph, _DOUBLE):
        if settled(region, shared) or region.label in options.skip:
            continue
        reads, makes = outside(region, shared)
        warning = _range_warning([tensor.values for tensor in region.constants])
        what = f"{len(region.nodes)} operators compute in FP32{warning}"
        change = Change(
            region.label, "TensorRT has no float64", what, inputs=reads, outputs=makes, tolerance=_TOLERANCE
        )
        retype(graph, region, _FLOAT, shared, _narrowed)
        changes.append(change)
    return changes


def _narrowed(values: np.ndarray) -> np.ndarray:
    """As FP32; finite numbers stay finite."""
    limit = float(np.finfo(np.float32).max)
    return np.where(np.isfinite(values), np.clip(values, -limit, limit), values).astype(np.float32)


def _range_warning(constants: Sequence[np.ndarray]) -> str:
    """What constants lose in FP32 beyond the last digits."""
    finite = [values[np.isfinite(values)] for values in constants]
    large = sum(int((np.abs(values) > np.finfo(np.float32).max).sum()) for values in finite)
    small = sum(int(((values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)).sum()) for values in finite)
    whole = sum(
        int(((np.abs(values) > 2**24) & (values == np.round(values)) & (values != values.astype(np.float32))).sum())
        for values in finite
        if not (np.abs(values) > np.finfo(np.float32).max).any()
    )
    words = [
        (large, "too large for FP32: clamped to its largest"),
        (small, "too small for FP32: lost digits or became 0"),
    ]
    words.append((whole, "whole numbers above 2^24 that FP32 rounds"))
    return "".join(f"; {count} constants {text}" for count, text in words if count)


SURGERY = Surgery(
    row=7,
    name="FLOAT64",
    thread="onnx-tensorrt #615",
    matches=matches,
    apply=apply,
)
