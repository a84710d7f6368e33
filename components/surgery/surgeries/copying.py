"""Copies of nodes, with the bodies that they have, for other tensors in and new names out."""

from collections.abc import MutableMapping

import onnx_graphsurgeon as gs

from components.surgery.reading import Graph, Node
from components.surgery.sorting import bodies

Tensors = MutableMapping[int, gs.Tensor]
"""What stands for a tensor in the copy, by the id of the tensor; others stand for themselves."""


def copy_node(node: gs.Node, tensors: Tensors, prefix: str) -> Node:
    """A copy of a node.

    Args:
        node: the node; it is not changed.
        tensors: gets the outputs.
        prefix: of the names of the copy and its outputs.
    """
    inputs = [tensors.get(id(tensor), tensor) for tensor in node.inputs]
    outputs = [_copy_tensor(tensor, tensors, prefix) for tensor in node.outputs]
    attributes = {
        name: _copy_body(value, tensors, prefix) if isinstance(value, gs.Graph) else value
        for name, value in node.attrs.items()
    }
    return Node(
        node.op,
        name=f"{prefix}/{node.name or node.op}",
        attrs=attributes,
        inputs=inputs,
        outputs=outputs,
        domain=node.domain,
    )


def own_constants(body: gs.Graph) -> list[gs.Constant]:
    """The constants that only nodes of this body, and of the bodies in it, read."""
    nodes = _nodes_within(body)
    inside = {id(node) for node in nodes}
    read = {id(tensor): tensor for node in nodes for tensor in node.inputs if isinstance(tensor, gs.Constant)}
    return [tensor for tensor in read.values() if all(id(reader) in inside for reader in tensor.outputs)]


def _nodes_within(body: gs.Graph) -> list[gs.Node]:
    found, waiting = [], [body]
    while waiting:
        for node in waiting.pop().nodes:
            found.append(node)
            waiting += [inner for _, inner in bodies(node)]
    return found


def _copy_tensor(tensor: gs.Tensor, tensors: Tensors, prefix: str) -> gs.Tensor:
    if not tensor.name:
        return gs.Variable.empty()
    # Shapes may differ from copy to copy; they are inferred again.
    made = gs.Variable(f"{prefix}/{tensor.name}", dtype=tensor.dtype, type=getattr(tensor, "type", "tensor_type"))
    tensors[id(tensor)] = made
    return made


def _copy_output(tensor: gs.Tensor, inside: Tensors, prefix: str) -> gs.Tensor:
    known = inside.get(id(tensor))
    if known is None and isinstance(tensor, gs.Constant):
        # A body must not return what is outside, where a constant of several copies would go.
        return gs.Constant(f"{prefix}/{tensor.name}", tensor.values)
    return tensor if known is None else known


def _copy_body(body: gs.Graph, tensors: Tensors, prefix: str) -> Graph:
    inside = dict(tensors)
    inputs = [_copy_tensor(tensor, inside, prefix) for tensor in body.inputs]
    for made, tensor in zip(inputs, body.inputs, strict=True):
        made.shape = tensor.shape  # ONNX Runtime wants those of the round number and the condition
    nodes = [copy_node(node, inside, prefix) for node in body.nodes]
    copy = Graph(
        nodes=nodes,
        inputs=inputs,
        outputs=[_copy_output(tensor, inside, prefix) for tensor in body.outputs],
        name=body.name,
        doc_string=body.doc_string,
        opset=body.opset,
        import_domains=body.import_domains,
    )
    if "prefixes" in vars(body):
        copy.prefixes = body.prefixes
    return copy
