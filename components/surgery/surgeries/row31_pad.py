"""Row 31: Pad with pads computed at run time: an initializer where they are always the same.

Exporters compute pads from shapes, also where nothing of it depends on the open dimensions. Pads that do are shape
arithmetic, which TensorRT does beforehand, in every mode; pads that come from floats it cannot have.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import optional_input
from components.surgery.shape_probes import float_source, probe
from components.surgery.surgery import Change, Options, Surgery, label, refusal


def matches(graph: gs.Graph) -> bool:
    """Whether a Pad has pads that are no initializer."""
    return any(_computed(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Writes down those that are always the same; names those that depend on floats."""
    changes = []
    for node in graph.nodes:
        if not _computed(node) or label(node) in options.skip:
            continue
        pads = _always(node, graph)
        source = float_source(node.inputs[1]) if pads is None else None
        if pads is not None:
            emit = Emitter(graph, f"{node.name or node.outputs[0].name}/pads")
            node.inputs[1] = emit.constant(pads)
            why = "its pads are computed at run time, which older parsers refuse"
            what = f"pads are the initializer {pads.tolist()}"
            changes.append(
                Change(label(node), why, what, inputs=(node.inputs[0].name,), outputs=(node.outputs[0].name,))
            )
        elif source is not None:
            why = f"its pads depend on {source!r}, and the shapes of an engine cannot depend on floats"
            changes.append(
                refusal(node, why, "compute the pads from shapes or integer inputs, or make them a constant")
            )
    return changes


def _computed(node: gs.Node) -> bool:
    pads = optional_input(node, 1) if node.op == "Pad" else None
    return pads is not None and not isinstance(pads, gs.Constant)


def _always(node: gs.Node, graph: gs.Graph) -> np.ndarray | None:
    """The pads that every probed shape of the input agrees on."""
    probed = probe(node.inputs[1], node.inputs[0], graph)
    if probed is None:
        return None
    first = probed[0][1]
    return first if all(np.array_equal(first, pads) for _, pads in probed) else None


SURGERY = Surgery(row=31, name="Pad", thread="row 31 of the table", matches=matches, apply=apply)
