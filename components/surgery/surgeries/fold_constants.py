"""Constant folding: what does not depend on the input is computed once, here.

Exporters write shape arithmetic and constants as nodes. TensorRT's parser wants many of these as initializers, and the
other surgeries find their patterns only once the constants are plain. Shapes are folded where they are static; what
would blow the model up is left to run time, and Q/DQ nodes stay, since they say where INT8 is meant.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.graphs import constant, has_subgraphs, numpy_dtype, static_shape
from components.surgery.surgery import EVERY_TARGET, WHOLE_GRAPH, Change, Options, Surgery

MAX_GROWTH = 2**18
"""Bytes that a folded node's outputs may be larger than its inputs."""
_NEVER = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"),
}


def matches(graph: gs.Graph) -> bool:
    """Whether a node can be computed now."""
    return any(_foldable(node) and _affordable(node) and not _is_output(node, graph) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:  # noqa: ARG001
    """Computes them, in topological order, so that what depends on them folds in the same pass."""
    folded: dict[str, int] = {}
    graph.toposort()
    for node in list(graph.nodes):
        if not _foldable(node) or not _affordable(node) or _is_output(node, graph):
            continue
        values = _compute(node, graph)
        if values is None:
            continue
        folded[node.op] = folded.get(node.op, 0) + 1
        _substitute(graph, node, values)
    if not folded:
        return []
    total = sum(folded.values())
    counts = ", ".join(f"{count} {op}" for op, count in sorted(folded.items(), key=lambda item: -item[1])[:6])
    why = "nodes that depend on no input hide constants from parsers"
    return [Change(node=WHOLE_GRAPH, why=why, what=f"computed {total} nodes: {counts}")]


def _foldable(node: gs.Node) -> bool:
    if node.op in _NEVER or node.domain not in (None, "", "ai.onnx") or has_subgraphs(node) or not node.outputs:
        return False
    if node.op == "Constant":
        return not any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values())
    if node.op == "Shape":
        return isinstance(node.inputs[0], gs.Constant) or static_shape(node.inputs[0]) is not None
    return bool(node.inputs) and all(isinstance(tensor, gs.Constant) or tensor.is_empty() for tensor in node.inputs)


def _is_output(node: gs.Node, graph: gs.Graph) -> bool:
    """Whether the node only makes a constant an output of the graph, which needs a node."""
    return node.op == "Identity" and any(tensor is node.outputs[0] for tensor in graph.outputs)


def _affordable(node: gs.Node) -> bool:
    """Whether the outputs are known to be small, or at least not known to be large."""
    if node.op in ("Constant", "Shape"):
        return True
    given = sum(tensor.values.nbytes for tensor in node.inputs if isinstance(tensor, gs.Constant))
    if node.op in ("ConstantOfShape", "Expand", "Tile") and _declared_size(node) * 8 > MAX_GROWTH:
        return False
    made = sum(_bytes(tensor) for tensor in node.outputs)
    return bool(made <= given + MAX_GROWTH)


def _declared_size(node: gs.Node) -> int:
    """Elements that the constant shape input of a node asks for; the guard against a shape that fills the memory."""
    shape = constant(node.inputs[0] if node.op == "ConstantOfShape" else node.inputs[1])
    if shape is None or not np.issubdtype(shape.dtype, np.integer):
        return 0
    size = math.prod(max(int(value), 1) for value in shape.reshape(-1))
    return size * (math.prod(node.inputs[0].shape) if node.op == "Tile" else 1)


def _bytes(tensor: gs.Tensor) -> int:
    shape = static_shape(tensor)
    if shape is None:
        return 0
    dtype = numpy_dtype(tensor)
    return math.prod(shape) * (dtype.itemsize if dtype is not None else 8)


def _compute(node: gs.Node, graph: gs.Graph) -> list[np.ndarray | None] | None:
    if node.op == "Shape" and not isinstance(node.inputs[0], gs.Constant):
        shape = np.array(static_shape(node.inputs[0]), np.int64)
        return [shape[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]]
    if node.op == "Constant" and isinstance(node.attrs.get("value"), gs.Constant):
        return [node.attrs["value"].values]
    inputs = [None if tensor.is_empty() else tensor.values for tensor in node.inputs]
    try:
        values = run_node(node, inputs, graph)
    except EvaluationError:
        return None
    plain = all(value is None or (isinstance(value, np.ndarray) and value.dtype != object) for value in values)
    return values if plain else None


def _substitute(graph: gs.Graph, node: gs.Node, values: list[np.ndarray | None]) -> None:
    results = list(node.outputs)
    node.outputs.clear()
    kept = [tensor for tensor in results if any(tensor is output for output in graph.outputs)]
    for tensor, value in zip(results, values, strict=True):
        if value is None:
            continue
        if any(tensor is output for output in kept):
            # A graph output must be made by a node: an Identity of the constant.
            source = gs.Constant(f"{tensor.name}/folded", value)
            graph.nodes.append(gs.Node("Identity", name=f"{tensor.name}/identity", inputs=[source], outputs=[tensor]))
            continue
        tensor.to_constant(value)


SURGERY = Surgery(
    row=0,
    name="constant folding",
    thread="onnx-tensorrt #361",
    matches=matches,
    apply=apply,
    targets=EVERY_TARGET,
)
