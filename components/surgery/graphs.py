"""Between ONNX models and onnx-graphsurgeon graphs, with shapes inferred and nothing of the model lost."""

import math

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from components.surgery.reading import read_graph
from components.surgery.weights import SMALL, Weights, copy_but
from components.surgery.writing import write_graph

_ENDLESS = 2**26


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model whose `value_info`, that of bodies too, is inferred afresh from the inputs' shapes.

    Old `value_info` is dropped first, since a surgery may have made it wrong. Large weights do not go through the
    inference, which would serialize them. Where inference fails, shapes are simply unknown.
    """
    slim = _without_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(slim, data_prop=not _is_endless(slim))
    except Exception:
        inferred = slim
    given = {value.name for value in model.graph.input}
    weights = {tensor.name for tensor in model.graph.initializer} - given
    graph = inferred.graph
    known = [info for info in graph.value_info if info.name not in weights and info.name not in given]
    result = onnx.ModelProto()
    copy_but(model, result, ["graph"])
    copy_but(model.graph, result.graph, ["node", "output", "value_info"])
    result.graph.node.MergeFrom(graph.node)
    result.graph.output.MergeFrom(graph.output)
    result.graph.value_info.extend(known)
    return result


def _is_endless(model: onnx.ModelProto) -> bool:
    """Whether an input has a size that no one means: onnx would follow the values of vectors of it, one by one."""
    shapes = ([size.dim_value for size in value.type.tensor_type.shape.dim] for value in model.graph.input)
    return any(math.prod(max(size, 1) for size in shape) > _ENDLESS for shape in shapes)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    slim = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = slim.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_shapes(attribute.g)
    return slim


def _forget_shapes(body: onnx.GraphProto) -> None:
    del body.value_info[:]
    for node in body.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_shapes(attribute.g)


def to_graph(model: onnx.ModelProto, weights: Weights | None = None) -> gs.Graph:
    """The model as a graph to operate on, with inferred shapes; the model itself stays untouched.

    Args:
        model: the model.
        weights: store that its references are into, where it is a skeleton.
    """
    return with_shapes(infer_shapes(model), weights)


def with_shapes(model: onnx.ModelProto, weights: Weights | None = None) -> gs.Graph:
    """As `to_graph`, of a model whose shapes are inferred already, such as one of `to_model`."""
    G_LOGGER.severity = G_LOGGER.CRITICAL + 1
    return read_graph(model, weights)


def to_model(graph: gs.Graph, original: onnx.ModelProto, weights: Weights | None = None) -> onnx.ModelProto:
    """The graph as a model with fresh shapes; metadata comes from the model that it was made of.

    Args:
        graph: it is pruned and sorted in place.
        original: where the metadata comes from.
        weights: store that large weights are left in; without one they are written into the model.
    """
    model = write_graph(graph, weights)
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


def is_open(tensor: gs.Tensor) -> bool:
    """Whether the shape of a tensor is there with a dimension that is no number."""
    return tensor.shape is not None and any(not isinstance(side, int | np.integer) for side in tensor.shape)


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
