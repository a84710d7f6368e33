"""Row 3: Resize with antialias=1 (TensorRT #3560), as torch writes `interpolate(antialias=True)`.

No TensorRT has the operator, and none can be faked by one: its filter grows with the factor. But each axis is a
constant matrix, so the resize is two MatMuls. Where nothing shrinks, antialiasing is the plain Resize.
"""

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from components.surgery.resizing import restate
from components.surgery.surgery import Change, Options, Surgery, label

_WHY = "TensorRT has no antialiased Resize"


def matches(graph: gs.Graph) -> bool:
    """Whether there is such a Resize."""
    return any(_wanted(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose sizes are fixed."""
    found = [node for node in graph.nodes if _wanted(node) and label(node) not in options.skip]
    return [restate(graph, node, _WHY) for node in found]


def _wanted(node: gs.Node) -> bool:
    return bool(node.op == "Resize" and node.attrs.get("antialias", 0))


SURGERY = Surgery(row=3, name="Resize antialias", thread="TensorRT #3560", matches=matches, apply=apply)
