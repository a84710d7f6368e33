"""Row 23: GridSample of opset 20, whose modes were renamed (TensorRT #4646, onnx-tensorrt PR #1060).

"bilinear" became "linear" and "bicubic" became "cubic". Parsers up to TensorRT 11.1 and TensorRT-RTX 1.5 know the old
names only, and sample the *nearest* pixel without a word. Linear is the default in either naming, so leaving the
attribute out is right for all of them. Cubic has no such way: for the target `tensorrt`, whose version is not known
here, it is the weighted sum of 16 pixels; the TensorRT-RTX that is used here reads it rightly.
"""

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from components.core.contracts.job import Runtime
from components.surgery.surgeries.row22_grid_sample_volume import rewrite
from components.surgery.surgery import Change, Options, Surgery, label

_RENAMED = 20
_WHY = "TensorRT up to 11.1 does not know the mode {!r} of opset 20 and samples the nearest pixel without a word"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a GridSample in the new naming."""
    return graph.opset >= _RENAMED and any(_renamed(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Leaves the name out, or the operator."""
    if graph.opset < _RENAMED:
        return []
    changes = []
    for node in [node for node in graph.nodes if _renamed(node) and label(node) not in options.skip]:
        why = _WHY.format(node.attrs["mode"])
        if node.attrs["mode"] == "linear":
            del node.attrs["mode"]
            names = tuple(tensor.name for tensor in node.inputs)
            what = "the mode is left out, since linear is the default in both namings"
            changes.append(Change(label(node), why, what, inputs=names, outputs=(node.outputs[0].name,)))
        elif options.target is Runtime.TENSORRT:
            changes.append(rewrite(graph, node, why))
    return changes


def _renamed(node: gs.Node) -> bool:
    return node.op == "GridSample" and node.attrs.get("mode") in ("linear", "cubic")


SURGERY = Surgery(row=23, name="GridSample naming", thread="TensorRT #4646", matches=matches, apply=apply)
