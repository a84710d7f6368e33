"""From an ONNX model to an onnx-graphsurgeon graph, in time that is linear in the nodes.

graphsurgeon's own importer copies the names of the whole graph for every body (If, Loop, Scan), drops attributes that
it does not know and forgets which initializers are graph inputs. Its tensors and graphs are used as they are.
"""

import gc
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter
from onnx_graphsurgeon.ir.tensor import SparseValues

from components.surgery.sorting import prune_and_sort, sort
from components.surgery.weights import Weights, stored_values

_PLAIN_TYPES = ("tensor_type", "sequence_type", "sparse_tensor_type")
_GRAPH, _PLAIN_ATTRIBUTES = (
    onnx.AttributeProto.GRAPH,
    {
        *(onnx.AttributeProto.FLOAT, onnx.AttributeProto.INT, onnx.AttributeProto.STRING, onnx.AttributeProto.TENSOR),
        *(onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS, onnx.AttributeProto.STRINGS),
    },
)


class Node(gs.Node):  # type: ignore[misc]
    """A node that is equal to itself only, so that finding one in a list does not compare attributes."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Graph(gs.Graph):  # type: ignore[misc]
    """A graph that sorts and cleans up in linear time, however deep it is."""

    def toposort(self, *_: Any, **__: Any) -> "Graph":
        """Puts the nodes in an order to run in."""
        sort(self)
        return self

    def cleanup(self, *_: Any, **__: Any) -> "Graph":
        """Drops nodes that no output needs; inputs stay."""
        prune_and_sort(self)
        return self


def read_graph(model: onnx.ModelProto, weights: Weights | None = None) -> Graph:
    """The model as a graph; bodies of nodes share the tensors of the graph around them.

    The graph and its bodies have two attributes more than others: `prefixes`, the first parts of all node names, for
    new names, and `weights`.

    Args:
        model: with `value_info` for its shapes.
        weights: store that the model's references are into.
    """
    opset, domains = OnnxImporter.get_opset(model), list(model.opset_import)
    functions = [OnnxImporter.import_function(function, opset, domains) for function in model.functions]
    # Nothing made here is garbage before the end; looking for some takes as long as the rest.
    collecting = gc.isenabled()
    gc.disable()
    try:
        graph = _Reader(opset, domains, weights).graph(model.graph, [])
    finally:
        if collecting:
            gc.enable()
    graph.functions, graph.ir_version = functions, model.ir_version
    graph.producer_name, graph.producer_version = model.producer_name, model.producer_version
    return graph


class _Reader:
    def __init__(self, opset: int | None, domains: Any, weights: Weights | None) -> None:
        self.opset, self.domains, self.weights = opset, domains, weights
        self.prefixes: set[str] = set()

    def graph(self, proto: onnx.GraphProto, scopes: list[dict[str, gs.Tensor]]) -> Graph:
        tensors: dict[str, gs.Tensor] = {}
        inside = [*scopes, tensors]
        for tensor in proto.initializer:
            tensors[tensor.name] = gs.Constant(tensor.name, stored_values(tensor, self.weights))
        for sparse in proto.sparse_initializer:
            tensors[sparse.values.name] = gs.Constant(sparse.values.name, SparseValues(sparse))
        for value in (*proto.input, *proto.value_info):
            if value.name not in tensors:
                tensors[value.name] = _variable(value)
        for node in proto.node:
            for name in node.output:
                if name and name not in tensors:
                    tensors[name] = gs.Variable(name)
        # What an output is declared to be is known of its tensor, too.
        for value in proto.output:
            known = tensors.get(value.name)
            if known is None:
                found = _find(value.name, scopes)
                tensors[value.name] = _variable(value) if found is None else found
            elif isinstance(known, gs.Variable) and known.dtype is None and known.shape is None:
                tensors[value.name] = _completed(known, value)
        nodes = [self.node(node, inside) for node in proto.node]
        graph = Graph(
            nodes=nodes,
            inputs=[tensors[value.name] for value in proto.input],
            outputs=[tensors[value.name] for value in proto.output],
            name=proto.name,
            doc_string=proto.doc_string,
            opset=self.opset,
            import_domains=self.domains,
        )
        graph.prefixes, graph.weights = self.prefixes, self.weights
        return graph

    def node(self, proto: onnx.NodeProto, scopes: list[dict[str, gs.Tensor]]) -> Node:
        if proto.name:
            self.prefixes.add(proto.name.rpartition("/")[0])
        attributes = {attribute.name: self.attribute(attribute, scopes) for attribute in proto.attribute}
        return Node(
            op=proto.op_type,
            name=proto.name,
            attrs=attributes,
            inputs=[_tensor(name, scopes) for name in proto.input],
            outputs=[scopes[-1][name] if name else gs.Variable.empty() for name in proto.output],
            domain=proto.domain if proto.HasField("domain") else None,
        )

    def attribute(self, proto: onnx.AttributeProto, scopes: list[dict[str, gs.Tensor]]) -> Any:
        if proto.type == _GRAPH and not proto.ref_attr_name:
            return self.graph(proto.g, scopes)
        if proto.type == onnx.AttributeProto.TENSOR and not proto.ref_attr_name:
            return gs.Constant(proto.t.name, stored_values(proto.t, self.weights))
        if proto.type in _PLAIN_ATTRIBUTES:
            (value,) = OnnxImporter.import_attributes([proto], {}, {}, self.opset, self.domains).values()
            return value
        return proto


def _tensor(name: str, scopes: list[dict[str, gs.Tensor]]) -> gs.Tensor:
    if not name:
        return gs.Variable.empty()
    found = _find(name, scopes)
    if found is None:
        found = scopes[-1][name] = gs.Variable(name)
    return found


def _find(name: str, scopes: list[dict[str, gs.Tensor]]) -> gs.Tensor | None:
    return next((scope[name] for scope in reversed(scopes) if name in scope), None)


def _variable(value: onnx.ValueInfoProto) -> gs.Variable:
    kind = value.type.WhichOneof("value")
    if kind is None or kind in _PLAIN_TYPES:
        return OnnxImporter.import_tensor(value)
    variable = gs.Variable(value.name)
    variable.declared = value
    return variable


def _completed(known: gs.Variable, value: onnx.ValueInfoProto) -> gs.Variable:
    declared = _variable(value)
    known.dtype, known.shape, known.type = declared.dtype, declared.shape, declared.type
    if "declared" in vars(declared):
        known.declared = declared.declared
    return known
