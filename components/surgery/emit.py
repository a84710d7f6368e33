"""Writes nodes into a graph, one line an operator, in the form that the graph's opset wants."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.reading import Node

Operand = Any
"""A tensor of the graph, or an array that becomes an initializer."""
_AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMax": 18, "ReduceMin": 18, "ReduceMean": 18, "ReduceProd": 18}


class Emitter:
    """Adds nodes whose names begin with `prefix`; a constant may be given as a NumPy array."""

    def __init__(self, graph: gs.Graph, prefix: str) -> None:
        self.graph = graph
        self.prefix = _free_prefix(graph, prefix)
        self._count = 0

    def constant(self, values: np.ndarray) -> gs.Constant:
        """An initializer."""
        self._count += 1
        return gs.Constant(f"{self.prefix}/constant_{self._count}", np.array(values, order="C"))

    def __call__(
        self, op: str, *inputs: Operand, dtype: Any = np.float32, name: str = "", **attributes: Any
    ) -> gs.Variable:
        """Adds a node with one output.

        Args:
            op: operator of the ONNX standard.
            inputs: tensors, or arrays that become initializers.
            dtype: NumPy type of the output.
            name: last part of the node's name; default: the operator and a number.
            attributes: of the node.
        """
        self._count += 1
        path = f"{self.prefix}/{name or f'{op}_{self._count}'}"
        output = gs.Variable(f"{path}:0", dtype=dtype)
        tensors = [value if isinstance(value, gs.Tensor) else self.constant(value) for value in inputs]
        self.graph.nodes.append(Node(op, name=path, attrs=attributes, inputs=tensors, outputs=[output]))
        return output

    def reshape(self, x: Operand, shape: Sequence[int], dtype: Any = np.float32) -> gs.Variable:
        """`x` with another shape; one size may be -1."""
        return self("Reshape", x, np.array(shape, np.int64), dtype=dtype)

    def cast(self, x: Operand, dtype: Any) -> gs.Variable:
        """`x` as another type."""
        return self("Cast", x, dtype=dtype, to=_onnx_type(dtype))

    def column(self, x: Operand, index: int, axis: int = -1, dtype: Any = np.float32) -> gs.Variable:
        """Slice `index` of an axis, which stays with size 1."""
        bounds = [np.array([value], np.int64) for value in (index, index + 1, axis)]
        return self("Slice", x, *bounds, dtype=dtype)

    def reduce(
        self, op: str, x: Operand, axes: Sequence[int], *, keepdims: bool, dtype: Any = np.float32
    ) -> gs.Variable:
        """ReduceSum and its kin over `axes`."""
        if self.graph.opset >= _AXES_AS_INPUT[op]:
            return self(op, x, np.array(axes, np.int64), dtype=dtype, keepdims=int(keepdims))
        return self(op, x, dtype=dtype, axes=list(axes), keepdims=int(keepdims))

    def finish(self, made: gs.Variable, old: gs.Tensor) -> None:
        """Gives `made` the name and the consumers of `old`: the border of the replaced piece keeps its names."""
        producer = made.inputs[0]
        for node in list(old.inputs):
            node.outputs = [
                gs.Variable(f"{self.prefix}/replaced_{position}") if tensor is old else tensor
                for position, tensor in enumerate(node.outputs)
            ]
        producer.outputs = [old if tensor is made else tensor for tensor in producer.outputs]
        for node in list(made.outputs):
            node.inputs = [old if tensor is made else tensor for tensor in node.inputs]


def _free_prefix(graph: gs.Graph, prefix: str) -> str:
    taken = vars(graph).get("prefixes")
    if taken is None:
        taken = graph.prefixes = {node.name.rpartition("/")[0] for node in graph.nodes if node.name}
    number, free = 1, prefix
    while free in taken:
        number += 1
        free = f"{prefix}_{number}"
    taken.add(free)
    return free


def _onnx_type(dtype: Any) -> int:
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
