"""Smaller models that ask a runtime about a part: one node alone, or all but some nodes."""

from collections.abc import Collection, Mapping

import onnx

from components.surgery.diagnosis.nodes import bodies

_TAKEN = {
    getattr(onnx.TensorProto, name)
    for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT32", "INT64", "INT8", "UINT8", "BOOL")
}
"""Types that every runtime takes as an input."""

_ENDS_IT = {
    getattr(onnx.TensorProto, name)
    for name in ("INT16", "UINT16", "UINT32", "UINT64", "STRING", "COMPLEX64", "COMPLEX128")
}
"""Types of weights at which TensorRT's parser stops; of inputs it complains, and goes on to the nodes."""

Types = Mapping[str, onnx.TypeProto]
Constants = Mapping[str, onnx.TensorProto]


def alone(model: onnx.ModelProto, node: onnx.NodeProto, known: Types, values: Constants) -> onnx.ModelProto | None:
    """A model of one node, its constants with it; None where the type of an input is not known.

    Args:
        model: that the node belongs to.
        node: any node of it.
        known: types of the model's tensors.
        values: constants of the model.
    """
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    part.graph.name = "alone"
    part.graph.node.append(node)
    for name in dict.fromkeys(name for name in _reads(node) if name):
        if name in values and values[name].data_type in _ENDS_IT:
            kind = onnx.helper.make_tensor_type_proto(values[name].data_type, values[name].dims)
            part.graph.input.append(onnx.ValueInfoProto(name=name, type=kind))
        elif name in values:
            part.graph.initializer.append(values[name])
            part.graph.initializer[-1].name = name
        elif name in known and known[name].HasField("tensor_type"):
            part.graph.input.append(onnx.ValueInfoProto(name=name, type=known[name]))
        else:
            return None
    for name in node.output:
        if name:
            part.graph.output.append(onnx.ValueInfoProto(name=name, type=known.get(name)))
    return part


def without(model: onnx.ModelProto, positions: Collection[int], known: Types) -> onnx.ModelProto | None:
    """The model without some nodes; what they made becomes an input, of the type that it had.

    Where that type is not known, what is computed from it goes too; so do inputs and weights that nothing reads then.
    None where nothing is left.

    Args:
        model: it is not changed.
        positions: of nodes in the main graph.
        known: types of the model's tensors.
    """
    gone, fed = set(positions), {}
    lost: set[str] = set()
    for position, node in enumerate(model.graph.node):
        if position not in gone and not lost.isdisjoint(_reads(node)):
            gone.add(position)
            lost |= set(node.output)
        elif position in gone:
            for name in filter(None, node.output):
                if name in known and _can_be_fed(known[name]):
                    fed[name] = known[name]
                else:
                    lost.add(name)
    kept = [node for position, node in enumerate(model.graph.node) if position not in gone]
    made = {name for node in kept for name in node.output if name}
    read = {name for node in kept for name in _reads(node)}
    if not made:
        return None
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = part.graph
    graph.name = model.graph.name
    graph.node.extend(kept)
    graph.input.extend(value for value in model.graph.input if value.name in read)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    graph.sparse_initializer.extend(one for one in model.graph.sparse_initializer if one.values.name in read)
    results = {value.name: value for value in model.graph.output if value.name in made}
    for name in sorted(made - read - set(results)):
        results[name] = onnx.ValueInfoProto(name=name, type=known.get(name))
    graph.output.extend(results.values())
    graph.input.extend(onnx.ValueInfoProto(name=name, type=kind) for name, kind in fed.items() if name in read)
    return part


def readers(model: onnx.ModelProto, tensor: str) -> set[int]:
    """Positions of the nodes of the main graph that read a tensor, in their bodies too."""
    return {position for position, node in enumerate(model.graph.node) if tensor in _reads(node)}


def _reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads, what its bodies take from around them among it."""
    names = set(node.input)
    for body in bodies(node):
        made = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        made |= {name for inner in body.node for name in inner.output}
        read = {name for inner in body.node for name in _reads(inner)} | {value.name for value in body.output}
        names |= read - made
    return names


def _can_be_fed(kind: onnx.TypeProto) -> bool:
    return kind.HasField("tensor_type") and kind.tensor_type.HasField("shape") and kind.tensor_type.elem_type in _TAKEN
