"""Cuts a part out of a model: its nodes, the weights that they read, and a declared border."""

from collections.abc import Sequence
from typing import NamedTuple

import onnx

from components.surgery.partition.flow import Flow
from components.surgery.partition.tensors import Tensors


class Piece(NamedTuple):
    """Nodes that run together, and the tensors that go in and out."""

    nodes: tuple[int, ...]
    """Positions in the main graph, in running order."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def piece(flow: Flow, nodes: Sequence[int], constants: Sequence[str] = ()) -> Piece:
    """The border of some nodes: inputs in the order of first use, outputs in the order in which they are made.

    Args:
        flow: the graph.
        nodes: positions, in running order; what is between any two of them must be among them.
        constants: constants that leave through this piece, since they are outputs of the model.
    """
    inside = set(nodes)
    proto = flow.model.graph.node
    inputs = dict.fromkeys(
        name
        for position in nodes
        for name in flow.reads[position]
        if name not in flow.constants and flow.makers.get(name) not in inside
    )
    results = set(flow.outputs)
    outputs = [
        name
        for position in nodes
        for name in proto[position].output
        if name and (name in results or any(reader not in inside for reader in flow.readers.get(name, ())))
    ]
    return Piece(tuple(nodes), tuple(inputs), (*outputs, *constants))


def cut(flow: Flow, part: Piece, tensors: Tensors) -> onnx.ModelProto:
    """The piece as a model: IR version, opsets and functions of the whole, weights that its nodes read."""
    source = flow.model
    read = {name for position in part.nodes for name in flow.reads[position]} | set(part.outputs)
    model = onnx.ModelProto(
        ir_version=source.ir_version,
        opset_import=source.opset_import,
        functions=source.functions,
        producer_name=source.producer_name,
        producer_version=source.producer_version,
    )
    graph = model.graph
    graph.name = source.graph.name or "part"
    kept = {*part.nodes, *_constant_nodes(flow, read)}
    graph.node.extend(source.graph.node[position] for position in sorted(kept - set(part.nodes)))
    graph.node.extend(source.graph.node[position] for position in part.nodes)
    graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name in read)
    graph.sparse_initializer.extend(one for one in source.graph.sparse_initializer if one.values.name in read)
    graph.input.extend(tensors.value(name) for name in part.inputs)
    if source.ir_version < 4:  # such readers take an initializer only where it is also an input
        graph.input.extend(tensors.value(tensor.name) for tensor in graph.initializer)
    graph.output.extend(tensors.value(name) for name in part.outputs)
    return model


def _constant_nodes(flow: Flow, read: set[str]) -> set[int]:
    return {
        position
        for position, node in enumerate(flow.model.graph.node)
        if node.op_type == "Constant" and any(name in read for name in node.output)
    }
