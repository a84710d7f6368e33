"""Row 6: Resize with keep_aspect_ratio_policy: the sizes are computed here.

The policy makes one scale for all axes and rounds the sizes, so coordinates are not computed with out / in. Where that
makes no difference the sizes are written down; elsewhere the weights are (`resizing`).
"""

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from components.surgery.resizing import restate
from components.surgery.surgery import Change, Options, Surgery, label

_WHY = "TensorRT has no keep_aspect_ratio_policy but stretch"


def matches(graph: gs.Graph) -> bool:
    """Whether there is such a Resize."""
    return any(_wanted(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose sizes are fixed."""
    found = [node for node in graph.nodes if _wanted(node) and label(node) not in options.skip]
    return [restate(graph, node, _WHY) for node in found]


def _wanted(node: gs.Node) -> bool:
    return bool(
        node.op == "Resize"
        and node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch"
        and not node.attrs.get("antialias", 0)
    )


SURGERY = Surgery(
    row=6, name="Resize keep_aspect_ratio_policy", thread="row 6 of the table", matches=matches, apply=apply
)
