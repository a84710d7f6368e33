"""Nodes of an ONNX model, those in the bodies of If, Loop and Scan among them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx

_NO_SCALARS = (onnx.AttributeProto.INT, onnx.AttributeProto.STRING, onnx.AttributeProto.FLOAT)


class Place(NamedTuple):
    """A node and where it is."""

    node: onnx.NodeProto
    position: int
    """In the main graph: of the node, or of the node whose body it is in."""
    inner: bool


def label(node: onnx.NodeProto) -> str:
    """How reports name a node: its name, or its operator and first output; as `components.surgery.surgery.label`."""
    if node.name:
        return str(node.name)
    return f"{node.op_type} -> {node.output[0]}" if node.output else str(node.op_type)


def places(model: onnx.ModelProto) -> Iterator[Place]:
    """All nodes, in order; a node comes before what is in it."""
    for position, node in enumerate(model.graph.node):
        yield Place(node, position, False)
        for inner in inside(node):
            yield Place(inner, position, True)


def inside(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The nodes in the bodies of a node, at any depth."""
    for body in bodies(node):
        for inner in body.node:
            yield inner
            yield from inside(inner)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs of an If, Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Numbers and texts among the attributes, and of a Loop whether it looks like an EmbeddingBag."""
    found: dict[str, object] = {}
    for attribute in node.attribute:
        if attribute.type in _NO_SCALARS:
            value = onnx.helper.get_attribute_value(attribute)
            found[attribute.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    if node.op_type == "Loop":
        inner = {one.op_type for one in inside(node)}
        # Traced, it looks the words up in each turn; dynamo does that before and keeps a sequence of bags.
        bags = "Slice" in inner and not inner.isdisjoint(("Gather", "SequenceInsert"))
        found["gathers"] = bags and any(op.startswith("Reduce") for op in inner)
    return found


def readers_of(model: onnx.ModelProto) -> Mapping[str, Sequence[onnx.NodeProto]]:
    """Tensor -> the nodes that read it directly."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node, _, _ in places(model):
        for name in filter(None, node.input):
            found.setdefault(name, []).append(node)
    return found


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Values that are in the file, by tensor name: initializers and Constant nodes, in bodies too."""
    found: dict[str, onnx.TensorProto] = {}
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        found.update({tensor.name: tensor for tensor in graph.initializer})
        for node in graph.node:
            if node.op_type == "Constant":
                values = [one.t for one in node.attribute if one.name == "value"]
                found.update(zip(node.output, values, strict=False))
            graphs.extend(bodies(node))
    return found


def types(model: onnx.ModelProto) -> Mapping[str, onnx.TypeProto]:
    """Types and shapes of tensors, as far as the model and shape inference say them.

    Args:
        model: with shapes inferred (`components.surgery.graphs.infer_shapes`).
    """
    found: dict[str, onnx.TypeProto] = {}
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for values in (graph.input, graph.output, graph.value_info):
            found.update({value.name: value.type for value in values if value.type.WhichOneof("value")})
        for node in graph.node:
            graphs.extend(bodies(node))
    return found


def type_name(kind: int) -> str:
    """``UINT32`` for 12."""
    return str(onnx.TensorProto.DataType.Name(kind)) if kind in onnx.TensorProto.DataType.values() else str(kind)
