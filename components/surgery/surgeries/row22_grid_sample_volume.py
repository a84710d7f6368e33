"""Row 22: GridSample of volumes (5-D), which TensorRT-RTX has and TensorRT has not (TensorRT #4618).

For the target `tensorrt` the volume becomes an image, slices below one another, and each sample the weighted sum of
its eight pixels (`sampling`). Where the sizes are open the node is named.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.core.contracts.job import Runtime
from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype
from components.surgery.sampling import places, sample
from components.surgery.surgery import Change, Options, Surgery, label, refusal


def matches(graph: gs.Graph) -> bool:
    """Whether there is a GridSample of a volume."""
    return any(_of_volume(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each of known size."""
    found = [node for node in graph.nodes if _of_volume(node) and label(node) not in options.skip]
    return [rewrite(graph, node, "TensorRT has GridSample of images (4-D) only") for node in found]


def _of_volume(node: gs.Node) -> bool:
    return node.op == "GridSample" and node.inputs[0].shape is not None and len(node.inputs[0].shape) == 5


def rewrite(graph: gs.Graph, node: gs.Node, why: str) -> Change:
    """Writes a GridSample as a weighted sum of pixels, or says why not."""
    x, grid, result, name = node.inputs[0], node.inputs[1], node.outputs[0], label(node)
    sizes, outs = (x.shape or [])[1:], (grid.shape or [])[1:-1]
    if not sizes or not outs or not all(isinstance(size, int | np.integer) for size in (*sizes, *outs)):
        return refusal(
            node,
            f"{why}; the sizes of its input and grid are not fixed",
            "fix them (--input-shape, target.input_shape)",
        )
    if numpy_dtype(x) != np.float32 or numpy_dtype(grid) != np.float32:
        return refusal(node, f"{why}; it samples {x.dtype}", "sample in float32")
    align = bool(node.attrs.get("align_corners", 0))
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(
        node.attrs.get("mode", "linear"), node.attrs.get("mode", "linear")
    )
    padding = node.attrs.get("padding_mode", "zeros")
    emit = Emitter(graph, f"{node.name or result.name}/grid_sample")
    count = int(np.prod(outs))
    flat = emit.reshape(grid, [0, count, len(outs)])
    sides = [int(size) for size in sizes[1:]]
    at = [
        places(emit, emit.column(flat, len(sides) - 1 - axis), side, align_corners=align)
        for axis, side in enumerate(sides)
    ]
    made = sample(emit, x, sides, at, mode, padding, align_corners=align)
    emit.finish(emit.reshape(made, [0, int(sizes[0]), *(int(out) for out in outs)]), result)
    taps = {"nearest": 1, "linear": 2, "cubic": 4}[mode] ** len(sides)
    what = f"a weighted sum of {taps} pixels, each picked from an image"
    return Change(name, why, what, inputs=(x.name, grid.name), outputs=(result.name,))


SURGERY = Surgery(
    row=22,
    name="GridSample of volumes",
    thread="TensorRT #4618",
    matches=matches,
    apply=apply,
    targets=frozenset({Runtime.TENSORRT}),
)
