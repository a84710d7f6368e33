"""Row 42: Upsample of opsets 7 to 9, and Resize of opset 10 (TensorRT #284), as the Resize of later opsets.

Both compute a pixel's place as output / scale and round it down; the Resize of opset 11 has other defaults. onnx's
version converter leaves the attributes out, which moves the numbers of everything but nearest by whole factors. So the
nodes are hidden from it, and written with their coordinates when the opset has been raised.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.sorting import bodies, is_body
from components.surgery.surgeries.row41_initializers import raise_opset
from components.surgery.surgery import EVERY_TARGET, Change, Options, Outcome, Surgery, label, refusal

_HIDDEN = "hasten.hidden"
"""Domain of nodes that the converter does not know."""
_NEW = 11
"""Opset of the Resize with coordinates."""


def matches(graph: gs.Graph) -> bool:
    """Whether there is such a node."""
    return not is_body(graph) and graph.opset < _NEW and any(_old(node, graph.opset) for node in _everywhere(graph))


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Raises the opset, and writes each of them as a Resize."""
    found = [node for node in _everywhere(graph) if _old(node, graph.opset)]
    if "opset" in options.skip:
        return []
    names, domains = [node.op for node in found], list(graph.import_domains or [])
    for node in found:
        node.op, node.domain = "Resize", _HIDDEN
    graph.import_domains = [
        *(domains or [onnx.helper.make_opsetid("", graph.opset)]),
        onnx.helper.make_opsetid(_HIDDEN, 1),
    ]
    raised = raise_opset(graph)
    if raised.outcome is Outcome.REFUSED:
        for node, name in zip(found, names, strict=True):
            node.op, node.domain = name, None
        graph.import_domains = domains or None
        return [refusal(node, raised.why, raised.what) for node in found]
    graph.import_domains = [domain for domain in graph.import_domains or [] if domain.domain != _HIDDEN]
    changes = [raised]
    inner = {id(node) for node in graph.nodes}
    for node in list(_everywhere(graph)):
        if node.domain == _HIDDEN:
            _write(node)
            reads, makes = ((node.inputs[0].name,), (node.outputs[0].name,)) if id(node) in inner else ((), ())
            what = "Resize with asymmetric coordinates, rounded down"
            why = "later opsets have no Upsample, and a Resize with other defaults"
            changes.append(Change(label(node), why, what, inputs=reads, outputs=makes))
    return changes


def _old(node: gs.Node, opset: int) -> bool:
    return node.domain in (None, "", "ai.onnx") and (
        node.op == "Upsample" or (node.op == "Resize" and opset == _NEW - 1)
    )


def _everywhere(graph: gs.Graph) -> Iterator[gs.Node]:
    """The nodes of a graph and of the bodies in it."""
    for node in graph.nodes:
        yield node
        for _, body in bodies(node):
            yield from _everywhere(body)


def _write(node: gs.Node) -> None:
    node.domain = None
    mode = {"bilinear": "linear"}.get(node.attrs.get("mode", "nearest"), node.attrs.get("mode", "nearest"))
    scales = node.inputs[1] if len(node.inputs) > 1 else None
    if scales is None:
        values = np.array(node.attrs["scales"], np.float32)
        scales = gs.Constant(f"{node.outputs[0].name}/scales", values)
    node.attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        node.attrs["nearest_mode"] = "floor"
    node.inputs = [node.inputs[0], gs.Variable.empty(), scales]


SURGERY = Surgery(row=42, name="Upsample", thread="TensorRT #284", matches=matches, apply=apply, targets=EVERY_TARGET)
