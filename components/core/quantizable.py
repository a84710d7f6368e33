"""Which part of a detector's graph may leave FP32: everything that the learned layers need, and nothing of the tail.

The tail (decoding, top-k, non-maximum suppression, choosing the RoIs) computes with coordinates and indices: rounding
them costs accuracy and, in TensorRT, breaks the typing, for no speed-up. It is told apart by the graph itself and not
by names: what a layer with constant weights depends on, without passing through a RoI pooling's boxes, is learned.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt
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


def constant_value(model: "onnx.ModelProto", tensor: str) -> "npt.NDArray[Any]":
    """The numbers of a constant tensor: of an initializer, or computed from constants alone.

    Raises:
        KeyError: the tensor is not constant.
    """
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    if tensor in initializers:
        return numpy_helper.to_array(initializers[tensor])
    producers = {name: node for node in graph.node for name in node.output}
    needed: dict[str, onnx.NodeProto] = {}
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if not name or name in initializers:
            continue
        node = producers[name]
        if node.output[0] not in needed:
            needed[node.output[0]] = node
            waiting.extend(node.input)
    nodes = [node for node in graph.node if node.output and node.output[0] in needed]
    read = {name for node in nodes for name in node.input}
    part = onnx.helper.make_graph(
        nodes,
        "constant",
        [],
        [onnx.ValueInfoProto(name=tensor)],
        initializer=[initializers[name] for name in sorted(read & initializers.keys())],
    )
    whole = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    results: Any = ReferenceEvaluator(whole).run(None, {})
    value: npt.NDArray[Any] = results[0]
    return value


def float_tensors(model: "onnx.ModelProto") -> set[str]:
    """Names of all tensors of type float32, by shape inference."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
    infos = [*inferred.value_info, *inferred.input, *inferred.output]
    kind = onnx.TensorProto.FLOAT
    names = {info.name for info in infos if info.type.tensor_type.elem_type == kind}
    return names | {initializer.name for initializer in model.graph.initializer if initializer.data_type == kind}


def name_nodes(graph: "onnx.GraphProto") -> None:
    """Gives every node a name of its own, which node lists need."""
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
