"""Row 1: Resize whose scales or sizes are computed from shapes (onnx-tensorrt #361, TensorRT #2803).

Constants behind Identity, Constant, Concat or Cast fold by themselves. What folding cannot see is a size computed
from a shape that stays open, as in ``Concat(Shape(x)[:2], Floor(2 * Shape(x)[2:]))``. Its subgraph is run on several
shapes; if the size is always an exact multiple of the input's, the multiple becomes the scales, as an initializer.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import optional_input
from components.surgery.shape_probes import probe
from components.surgery.surgery import EVERY_TARGET, Change, Options, Surgery, label


def matches(graph: gs.Graph) -> bool:
    """Whether a Resize has scales or sizes that are no initializer."""
    return any(_computed(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Gives each of them constant scales, where they are constant."""
    changes = []
    for node in graph.nodes:
        if not _computed(node) or label(node) in options.skip:
            continue
        scales = _constant_scales(node, graph)
        if scales is None:
            # Parsers of today take computed sizes, and row 2 makes sizes of computed scales.
            continue
        emit = Emitter(graph, f"{node.name or node.outputs[0].name}/scales")
        roi = node.inputs[1] if len(node.inputs) > 1 else gs.Variable.empty()
        node.inputs = [node.inputs[0], roi, emit.constant(scales)]
        numbers = ", ".join(f"{scale:g}" for scale in scales)
        why = "the size is computed from a shape that is not fixed, which older parsers refuse"
        changes.append(Change(node=label(node), why=why, what=f"scales are the initializer [{numbers}]"))
    return changes


def _computed(node: gs.Node) -> bool:
    if node.op != "Resize":
        return False
    given = _size_input(node)
    return given is not None and not isinstance(given, gs.Constant)


def _size_input(node: gs.Node) -> gs.Tensor | None:
    sizes = optional_input(node, 3)
    return sizes if sizes is not None else optional_input(node, 2)


def _constant_scales(node: gs.Node, graph: gs.Graph) -> np.ndarray | None:
    """The scales [rank] that every probed shape agrees on."""
    stretched = node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    if "axes" in node.attrs or not stretched:
        return None
    probed = _probed(node, graph)
    if probed is None:
        return None
    relative = optional_input(node, 3) is not None
    found = [made / np.array(shape) if relative else made for shape, made in probed]
    scales = np.asarray(found[0], np.float32)
    exact = all(np.array_equal(scales, np.asarray(other, np.float32)) for other in found)
    # ONNX rounds down, some tools in float32 and some in float64: a scale of 5/11 could make 4 of 11.
    exact &= not relative or all(
        np.array_equal(np.floor(np.array(shape, dtype) * scales.astype(dtype)), made)
        for shape, made in probed
        for dtype in (np.float32, np.float64)
    )
    return scales if exact else None


def _probed(node: gs.Node, graph: gs.Graph) -> list[tuple[tuple[int, ...], np.ndarray]] | None:
    x, given = node.inputs[0], _size_input(node)
    probed = probe(given, x, graph) if given is not None else None
    return None if probed is None or any(made.shape != (len(shape),) for shape, made in probed) else probed


SURGERY = Surgery(
    row=1,
    name="Resize scales",
    thread="onnx-tensorrt #361, TensorRT #2803",
    matches=matches,
    apply=apply,
    targets=EVERY_TARGET,
)
