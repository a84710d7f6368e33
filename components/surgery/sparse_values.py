"""Weights that are stored sparse (`sparse_initializer`, the attribute `sparse_value` of Constant), written out in full.

Of row 41: only how the values are stored changes. TensorRT's parser knows neither, and no surgery looks into them.
"""

import math

import numpy as np
import onnx
from onnx import numpy_helper

from components.surgery.diagnosis.nodes import bodies, places
from components.surgery.weights import copy_but

LIMIT = 2**30
"""Bytes that the values of one tensor may take in full; above it, it stays as it is."""
ATTRIBUTE = "sparse_value"


def sparse_names(model: onnx.ModelProto) -> set[str]:
    """Names of the tensors whose values are stored sparse, those in bodies too."""
    found = {tensor.values.name for graph in _graphs(model.graph) for tensor in graph.sparse_initializer}
    constants = (place.node for place in places(model) if place.node.op_type == "Constant")
    return found | {name for node in constants if _attribute(node) is not None for name in node.output}


def without_sparse_values(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with such values in full, and the names of their tensors; the model itself where there are none."""
    if not sparse_names(model):
        return model, []
    written = onnx.ModelProto()
    copy_but(model, written, [])
    names = []
    for graph in _graphs(written.graph):
        kept = []
        for sparse in graph.sparse_initializer:
            whole = _in_full(sparse)
            if whole is None:
                kept.append(sparse)
            else:
                graph.initializer.append(whole)
                names.append(whole.name)
        del graph.sparse_initializer[:]
        graph.sparse_initializer.extend(kept)
        for node in graph.node:
            attribute = _attribute(node) if node.op_type == "Constant" else None
            whole = None if attribute is None else _in_full(attribute.sparse_tensor)
            if attribute is not None and whole is not None:
                attribute.CopyFrom(onnx.helper.make_attribute("value", whole))
                names.extend(node.output)
    return (written if names else model), names


def _attribute(node: onnx.NodeProto) -> onnx.AttributeProto | None:
    return next((one for one in node.attribute if one.name == ATTRIBUTE), None)


def _in_full(sparse: onnx.SparseTensorProto) -> onnx.TensorProto | None:
    """The same tensor with its zeros; None where it is too large, or damaged in a way that is for others to judge."""
    shape = tuple(sparse.dims)
    try:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        if min(shape, default=1) < 0 or math.prod(shape) * values.itemsize > LIMIT:
            return None
        full = np.zeros(math.prod(shape), values.dtype)
        # One number into the flat tensor, or one for each axis.
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
        if flat.size and flat.min() < 0:
            return None
        full[flat] = values
    except (ValueError, IndexError, TypeError):
        return None
    return numpy_helper.from_array(full.reshape(shape), sparse.values.name)


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    found = [graph]
    for one in found:
        found.extend(body for node in one.node for body in bodies(node))
    return found
