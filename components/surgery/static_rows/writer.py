"""Writes nodes whose shapes and types are known at once, which the rules need to go on."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter, Operand
from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.graphs import numpy_dtype, static_shape

_FOLDED = 2**16
"""Elements that a node which reads constants only may make of nothing, to be computed at once."""
_MOST = 2**22
"""Elements that it may read."""

_COMPARED = 2**12
"""Elements up to which constants are compared by their values."""
_RESHAPING = ("Reshape", "Expand", "Squeeze", "Unsqueeze", "Flatten", "Tile")
"""Operators that do nothing if they leave the shape as it was."""


class Writer(Emitter):
    """An `Emitter` that infers the shapes and types of what it writes, leaves out what does nothing, and folds."""

    def __init__(self, graph: gs.Graph, prefix: str) -> None:
        super().__init__(graph, prefix)
        self.given: dict[str, gs.Tensor] = {}
        """Tensors of the old graph that were read."""
        self._start = len(graph.nodes)
        self.opsets: list[onnx.OperatorSetIdProto] = graph.import_domains or [onnx.helper.make_opsetid("", graph.opset)]
        self._made: set[int] = set()
        self._known: dict[Hashable, list[gs.Tensor]] = {}
        """What was written, by what it computes: the same again is not written again."""
        self._read: dict[int, dict[str, gs.Tensor]] = {}
        """Tensors of the old graph that a written one depends on, by its id: what one region wrote, another may use."""

    def __call__(self, op: str, *inputs: Operand, dtype: Any = None, name: str = "", **attributes: Any) -> gs.Variable:
        """Adds a node with one output; its type is inferred."""
        del dtype
        (made,) = self.node(op, inputs, attributes, name=name)
        return made

    def node(
        self, op: str, inputs: Sequence[Operand], attributes: Mapping[str, Any], *, outputs: int = 1, name: str = ""
    ) -> list[gs.Variable]:
        """Adds a node.

        Args:
            op: operator.
            inputs: tensors, or arrays that become initializers; None leaves one out.
            attributes: of the node.
            outputs: how many.
            name: last part of the node's name.

        Raises:
            EvaluationError: ONNX's shape inference has nothing to say about it.
        """
        tensors = [self._tensor(value) for value in inputs]
        if not name and _renames(op, tensors, attributes):
            return [tensors[0]]
        key = None if name else _key(op, tensors, attributes, outputs)
        if key in self._known:
            for tensor in self._known[key]:
                self.given |= self._read.get(id(tensor), {})
            return self._known[key]
        self._count += 1
        path = f"{self.prefix}/{name or f'{op}_{self._count}'}"
        made = [gs.Variable(f"{path}:{position}") for position in range(outputs)]
        node = gs.Node(op, name=path, attrs=dict(attributes), inputs=tensors, outputs=made)
        for tensor, (dtype, shape) in zip(made, infer(node, self.graph, self.opsets), strict=True):
            tensor.dtype, tensor.shape = dtype, shape
        same = not name and op in _RESHAPING and made[0].shape == static_shape(tensors[0])
        known = [tensors[0]] if same else self._folded(node)
        if known:
            node.inputs.clear()
            node.outputs.clear()
            return self._remember(key, known)
        read: dict[str, gs.Tensor] = {}
        for tensor in tensors:
            if id(tensor) in self._made:
                read |= self._read.get(id(tensor), {})
            elif isinstance(tensor, gs.Variable) and not tensor.is_empty():
                read[tensor.name] = tensor
        self.given |= read
        self._read |= {id(tensor): read for tensor in made}
        self._add(node)
        return self._remember(key, made)

    def _remember(self, key: Hashable, made: list[gs.Tensor]) -> list[gs.Tensor]:
        if key is not None:
            self._known[key] = made
        return made

    def renamed(self, x: gs.Tensor) -> gs.Variable:
        """A copy of `x` that is made by a node of its own."""
        self._count += 1
        path = f"{self.prefix}/copy_{self._count}"
        copy = gs.Variable(f"{path}:0", x.dtype, x.shape)
        self._read[id(copy)] = self._read.get(id(x), {}) if id(x) in self._made else {x.name: x}
        self._add(gs.Node("Identity", name=path, inputs=[x], outputs=[copy]))
        return copy

    def wrote(self, x: gs.Tensor) -> bool:
        """Whether a node of this writer makes `x`."""
        return id(x) in self._made and bool(x.inputs)

    def _add(self, node: gs.Node) -> None:
        self._made.update(id(tensor) for tensor in node.outputs)
        self.graph.nodes.append(node)

    def _tensor(self, value: Operand) -> gs.Tensor:
        if value is None:
            return gs.Variable.empty()
        return value if isinstance(value, gs.Tensor) else self.constant(value)

    def _folded(self, node: gs.Node) -> list[gs.Constant] | None:
        tensors = [tensor for tensor in node.inputs if not tensor.is_empty()]
        if not tensors or not all(isinstance(tensor, gs.Constant) for tensor in tensors):
            return None
        given, made = (sum(int(np.prod(tensor.shape)) for tensor in side) for side in (tensors, node.outputs))
        if given > _MOST or made > given + _FOLDED:
            return None
        try:
            values = run_node(
                node, [None if tensor.is_empty() else tensor.values for tensor in node.inputs], self.graph
            )
        except EvaluationError:
            return None
        return [self.constant(value) for value in values if value is not None]

    def reduce(self, op: str, x: Operand, axes: Sequence[int], *, keepdims: bool, dtype: Any = None) -> gs.Variable:
        """See `Emitter.reduce`."""
        return super().reduce(op, x, axes, keepdims=keepdims, dtype=dtype)

    def choose(self, mask: Operand, values: Operand, others: Operand) -> gs.Variable:
        """``Where``, which ONNX Runtime lacks for booleans."""
        kinds = [value.dtype for value in (values, others)]
        if np.dtype(kinds[0]) != np.bool_:
            return self("Where", mask, values, others)
        return self("Or", self("And", mask, values), self("And", self("Not", mask), others))

    def undo(self) -> None:
        """Removes every node that was written."""
        for node in self.graph.nodes[self._start :]:
            node.inputs.clear()
            node.outputs.clear()
        del self.graph.nodes[self._start :]


def _key(op: str, tensors: Sequence[gs.Tensor], attributes: Mapping[str, Any], outputs: int) -> Hashable:
    """What a node computes; None where that cannot be compared."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
    if not all(isinstance(value, str | bytes | int | float | tuple) for value in plain.values()):
        return None
    return (op, outputs, tuple(map(_identity, tensors)), tuple(sorted(plain.items())))


def _identity(tensor: gs.Tensor) -> Hashable:
    if isinstance(tensor, gs.Constant) and np.prod(tensor.shape) <= _COMPARED:
        values = np.asarray(tensor.values)
        return (values.dtype.str, values.shape, values.tobytes())
    return "" if tensor.is_empty() else id(tensor)


def _renames(op: str, tensors: Sequence[gs.Tensor], attributes: Mapping[str, Any]) -> bool:
    """Whether a node is an Identity, or a Cast to the type that there is."""
    if op != "Cast":
        return op == "Identity"
    dtype = numpy_dtype(tensors[0])
    return dtype is not None and int(onnx.helper.np_dtype_to_tensor_dtype(dtype)) == attributes["to"]


def infer(
    node: gs.Node, graph: gs.Graph, opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[tuple[np.dtype, tuple[int, ...]]]:
    """Types and static shapes of a node's outputs.

    Raises:
        EvaluationError: ONNX cannot tell.
    """
    proto = onnx.NodeProto()
    proto.CopyFrom(gs.exporters.onnx_exporter.OnnxExporter.export_node(node))
    types, data = {}, {}
    for position, tensor in enumerate(node.inputs):
        if tensor.is_empty():
            proto.input[position] = ""
            continue
        name = proto.input[position] = f"i{position}"
        types[name] = onnx.helper.make_tensor_type_proto(_onnx_type(tensor), _shape(tensor))
        if isinstance(tensor, gs.Constant) and np.prod(tensor.shape) <= _FOLDED:
            data[name] = onnx.numpy_helper.from_array(tensor.values)
    for position in range(len(node.outputs)):
        proto.output[position] = f"o{position}"
    try:
        schema = onnx.defs.get_schema(node.op, graph.opset, "")
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=list(opsets), ir_version=max(graph.ir_version or 8, 8)
        )
    except Exception as error:
        raise EvaluationError(" ".join(str(error).split())[:200]) from error
    results = []
    for position in range(len(node.outputs)):
        kind = found[f"o{position}"].tensor_type if f"o{position}" in found else None
        sizes = None if kind is None or not kind.HasField("shape") else kind.shape.dim
        if kind is None or sizes is None or not all(size.HasField("dim_value") for size in sizes):
            raise EvaluationError("its output's shape does not follow from the shapes of its inputs")
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        results.append((dtype, tuple(size.dim_value for size in sizes)))
    return results


def _onnx_type(tensor: gs.Tensor) -> int:
    dtype = numpy_dtype(tensor)
    if dtype is None:
        raise EvaluationError(f"the type of {tensor.name!r} is not known")
    return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))


def _shape(tensor: gs.Tensor) -> tuple[int, ...]:
    shape = static_shape(tensor)
    if shape is None:
        raise EvaluationError(f"the shape of {tensor.name!r} is not known")
    return shape
