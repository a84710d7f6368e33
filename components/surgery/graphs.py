"""Between ONNX protos and onnx-graphsurgeon graphs, with shapes inferred and nothing of the model lost."""

import math

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

_SMALL = 1024
"""Elements up to which an initializer's values take part in shape inference; larger ones are weights."""


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model whose `value_info` is inferred afresh from the inputs' shapes.

    Old `value_info` is dropped first, since a surgery may have made it wrong. Large weights do not go through the
    inference, which would serialize them. Where inference fails, shapes are simply unknown.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    slim = onnx.ModelProto()
    slim.CopyFrom(_without_weights(result))
    try:
        inferred = onnx.shape_inference.infer_shapes(slim, data_prop=True)
    except Exception:
        return result
    weights = {tensor.name for tensor in result.graph.initializer}
    result.graph.value_info.extend(info for info in inferred.graph.value_info if info.name not in weights)
    for output, known in zip(result.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(known)
    return result


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    slim = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = slim.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return slim


def to_graph(model: onnx.ModelProto) -> gs.Graph:
    """The model as a graph to operate on, with inferred shapes; the model itself stays untouched."""
    G_LOGGER.severity = G_LOGGER.CRITICAL + 1
    graph = gs.import_onnx(infer_shapes(model))
    # graphsurgeon forgets which initializers are also inputs; row 41 is about them.
    tensors = graph.tensors()
    inputs = {tensor.name for tensor in graph.inputs}
    for value in model.graph.input:
        if value.name not in inputs and isinstance(tensors.get(value.name), gs.Constant):
            graph.inputs.append(tensors[value.name])
    return graph


def to_model(graph: gs.Graph, original: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as a model with fresh shapes; metadata comes from the model that it was made of."""
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    model = gs.export_onnx(graph, do_type_check=False)
    model.doc_string, model.domain, model.model_version = original.doc_string, original.domain, original.model_version
    model.graph.doc_string = original.graph.doc_string
    model.metadata_props.extend(original.metadata_props)
    model.training_info.extend(original.training_info)
    if not model.functions:
        model.functions.extend(original.functions)
    return infer_shapes(model)


def static_shape(tensor: gs.Tensor) -> tuple[int, ...] | None:
    """The shape when every dimension is a known number, else None."""
    if tensor.shape is None or not all(isinstance(size, int | np.integer) and size >= 0 for size in tensor.shape):
        return None
    return tuple(int(size) for size in tensor.shape)


def numpy_dtype(tensor: gs.Tensor) -> np.dtype | None:
    """The tensor's NumPy type; None where it is unknown or NumPy has none, such as bfloat16 and FP8."""
    return None if tensor.dtype is None or isinstance(tensor.dtype, int) else np.dtype(tensor.dtype)


def constant(tensor: gs.Tensor) -> np.ndarray | None:
    """The values of a constant tensor, else None."""
    return tensor.values if isinstance(tensor, gs.Constant) else None


def scalar(tensor: gs.Tensor) -> float | None:
    """The value of a constant tensor with one element, else None."""
    values = constant(tensor)
    return None if values is None or values.size != 1 else values.reshape(()).item()


def optional_input(node: gs.Node, index: int) -> gs.Tensor | None:
    """Input `index` of the node, or None where it is left out."""
    if len(node.inputs) <= index or node.inputs[index].is_empty():
        return None
    return node.inputs[index]


def has_subgraphs(node: gs.Node) -> bool:
    """Whether the node (If, Loop, Scan) has graphs of its own."""
    return any(isinstance(value, gs.Graph) for value in node.attrs.values())
