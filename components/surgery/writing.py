"""From an onnx-graphsurgeon graph to an ONNX model: unused nodes dropped, the rest sorted, in linear time.

graphsurgeon's own exporter writes a constant into every body that reads it, and its sort recurses once a node.
"""

from collections.abc import Iterator

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter, update_import_domains
from onnx_graphsurgeon.ir.tensor import SparseValues

from components.surgery.sorting import bodies, prune_and_sort
from components.surgery.weights import Weights, constant_to_proto, is_reference


def write_graph(graph: gs.Graph, weights: Weights | None = None) -> onnx.ModelProto:
    """The graph as a model, without `value_info`.

    Args:
        graph: its nodes are pruned and sorted in place.
        weights: store that large weights are left in; without one they are written into the model.

    Raises:
        ValueError: the nodes form a cycle.
    """
    prune_and_sort(graph)
    constants: dict[int, list[gs.Constant]] = {}
    for tensor, home in _homes(graph):
        constants.setdefault(home, []).append(tensor)
    model = onnx.ModelProto(
        ir_version=onnx.IR_VERSION if graph.ir_version is None else graph.ir_version,
        producer_name=graph.producer_name,
        producer_version=graph.producer_version,
        opset_import=update_import_domains(graph),
        functions=[OnnxExporter.export_function(function) for function in graph.functions],
    )
    _write(graph, model.graph, constants, weights)
    return model


def write_node(node: gs.Node, weights: Weights | None = None) -> onnx.NodeProto:
    """One node without graphs of its own as a proto."""
    proto = onnx.NodeProto()
    _write_node(node, proto, {}, weights)
    return proto


def _homes(graph: gs.Graph) -> Iterator[tuple[gs.Constant, int]]:
    """The constants, each with the id of the graph that its initializer goes to: the innermost around all its users."""
    found: dict[int, tuple[gs.Constant, tuple[int, ...]]] = {}
    stack: list[tuple[gs.Graph, tuple[int, ...]]] = [(graph, (id(graph),))]
    while stack:
        inner, path = stack.pop()
        used = [*inner.inputs, *inner.outputs]
        for node in inner.nodes:
            used += node.inputs
            stack += [(body, (*path, id(body))) for _, body in bodies(node)]
        for tensor in used:
            if isinstance(tensor, gs.Constant):
                known = found.get(id(tensor))
                found[id(tensor)] = (tensor, path if known is None else _common(known[1], path))
    for tensor, path in found.values():
        stored = not isinstance(tensor._values, SparseValues) and _stored(tensor)
        yield tensor, path[0] if stored else path[-1]


def _stored(tensor: gs.Constant) -> bool:
    proto = getattr(tensor._values, "tensor", None)
    return proto is not None and is_reference(proto)


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(left for left, right in zip(a, b, strict=False) if left == right)


def _write(
    graph: gs.Graph, proto: onnx.GraphProto, constants: dict[int, list[gs.Constant]], weights: Weights | None
) -> None:
    proto.name = graph.name
    proto.doc_string = graph.doc_string
    for node in graph.nodes:
        _write_node(node, proto.node.add(), constants, weights)
    proto.input.extend(_value_info(tensor) for tensor in graph.inputs)
    proto.output.extend(_value_info(tensor) for tensor in graph.outputs)
    written = set()
    for tensor in constants.get(id(graph), ()):
        if tensor.name in written:
            continue
        written.add(tensor.name)
        if isinstance(tensor._values, SparseValues):
            proto.sparse_initializer.append(tensor._values.tensor)
        else:
            proto.initializer.append(constant_to_proto(tensor, weights))


def _write_node(
    node: gs.Node, proto: onnx.NodeProto, constants: dict[int, list[gs.Constant]], weights: Weights | None
) -> None:
    proto.op_type, proto.name = node.op, node.name or ""
    if node.domain is not None:
        proto.domain = node.domain
    proto.input.extend(tensor.name for tensor in node.inputs)
    proto.output.extend(tensor.name for tensor in node.outputs)
    for name, value in node.attrs.items():
        if isinstance(value, gs.Graph):
            attribute = proto.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
            _write(value, attribute.g, constants, weights)
        elif isinstance(value, gs.Constant):
            attribute = proto.attribute.add(name=name, type=onnx.AttributeProto.TENSOR)
            attribute.t.CopyFrom(constant_to_proto(value, weights))
        elif isinstance(value, onnx.AttributeProto):
            proto.attribute.append(value)
        else:
            proto.attribute.extend(OnnxExporter.export_attributes({name: value}))


def _value_info(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    if "declared" in vars(tensor):
        value = onnx.ValueInfoProto()
        value.CopyFrom(tensor.declared)
        value.name = tensor.name
    else:
        value = OnnxExporter.export_value_info_proto(tensor, False)
    return value
