"""Which part of a detector's graph may leave FP32: everything that the learned layers need, and nothing of the tail.

The tail (decoding, top-k, non-maximum suppression, choosing the RoIs) computes with coordinates and indices: rounding
them costs accuracy and, in TensorRT, breaks the typing, for no speed-up. It is told apart by the graph itself and not
by names: what a layer with constant weights depends on, without passing through a RoI pooling's boxes, is learned.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""ONNX operators that are worth quantizing when their weights are constant."""
_GATES = ("RoiAlign", "GridSample", "Gather", "GatherND", "GatherElements")
"""Operators of which only the first input is data; the others say where to read."""
_BORDERS = {
    *("TopK", "NonMaxSuppression", "ScatterElements", "Where", "Cast", "And", "Or", "Not"),
    *("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"),
}
"""Operators that choose and mask; what lies behind them is no layer's input."""


def weighted_nodes(graph: "onnx.GraphProto") -> list[str]:
    """Names of the layers with constant weights, in the order of the graph."""
    constants = constant_tensors(graph)
    return [node.name for node in graph.node if node.op_type in WEIGHTED and node.input[1] in constants]


def learned_nodes(graph: "onnx.GraphProto") -> set[str]:
    """Names of the nodes of the learned part: weighted layers and what leads to them."""
    weighted = set(weighted_nodes(graph))
    producers = {name: node for node in graph.node for name in node.output}
    waiting = [node for node in graph.node if node.name in weighted]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        inputs = node.input[:1] if node.op_type in _GATES else node.input
        before = (producers[name] for name in inputs if name in producers)
        waiting.extend(node for node in before if node.op_type not in _BORDERS)
    return seen


def tail_nodes(graph: "onnx.GraphProto") -> list[str]:
    """Names of the nodes that stay in FP32, in the order of the graph."""
    learned = learned_nodes(graph)
    return [node.name for node in graph.node if node.name not in learned]


def constant_tensors(graph: "onnx.GraphProto") -> set[str]:
    """Names of the initializers and of what is computed from constants alone."""
    constants = {initializer.name for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and all(name in constants or not name for name in node.input)):
            constants.update(node.output)
    return constants


def name_nodes(graph: "onnx.GraphProto") -> None:
    """Gives every node a name of its own, which node lists need."""
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
