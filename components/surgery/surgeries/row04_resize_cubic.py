"""Row 4: cubic Resize, as two MatMuls for the parsers that lack it.

TensorRT-RTX takes cubic with its coefficient and exclude_outside as they are, and so does TensorRT of today. Its
documented operators name nearest and linear only, and old versions read whatever is not nearest as linear, without a
word; which version it will be is not known here. So for the target `tensorrt` each axis is multiplied by its matrix,
which is exact.
"""

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from components.core.contracts.job import Runtime
from components.surgery.resizing import restate
from components.surgery.surgery import Change, Options, Surgery, label

_WHY = "TensorRT documents nearest and linear Resize only"
_TARGETS = frozenset({Runtime.TENSORRT})


def matches(graph: gs.Graph) -> bool:
    """Whether there is such a Resize."""
    return any(_wanted(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose sizes are fixed."""
    found = [node for node in graph.nodes if _wanted(node) and label(node) not in options.skip]
    return [restate(graph, node, _WHY, keep=False) for node in found]


def _wanted(node: gs.Node) -> bool:
    return bool(node.op == "Resize" and node.attrs.get("mode") == "cubic")


SURGERY = Surgery(
    row=4,
    name="Resize cubic",
    thread="operators documented for TensorRT",
    matches=matches,
    apply=apply,
    targets=_TARGETS,
)
