"""What flows where in a model's main graph: who makes a tensor, who reads it, what must run before what."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from components.core.errors import UserError


@dataclass(frozen=True)
class Flow:
    """The nodes of the main graph that the outputs need, by position in `model.graph.node`."""

    model: onnx.ModelProto
    order: tuple[int, ...]
    """Positions, each after those that it needs; nodes that no output needs and constants are left out."""
    makers: dict[str, int]
    """Tensor -> position of the node in `order` that makes it."""
    reads: dict[int, tuple[str, ...]]
    """Position -> tensors that it reads, those that its If, Loop and Scan bodies capture among them."""
    readers: dict[str, tuple[int, ...]]
    needs: dict[int, tuple[int, ...]]
    """Position -> positions of the nodes that make what it reads."""
    inputs: tuple[str, ...]
    """Of the model: those that a caller feeds."""
    outputs: tuple[str, ...]
    constants: frozenset[str]
    """Initializers and what Constant nodes make: every part that reads one gets its own."""


def flow_of(model: onnx.ModelProto) -> Flow:
    """Looks at the main graph.

    Raises:
        UserError: an output, or what a node reads, is made by nothing, or by itself.
    """
    nodes = model.graph.node
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
    makers = {name: position for position, node in enumerate(nodes) for name in node.output if name}
    constants |= {name for name, position in makers.items() if nodes[position].op_type == "Constant"}
    outputs = tuple(value.name for value in model.graph.output)
    reads: dict[int, tuple[str, ...]] = {}
    wanted = list(outputs)
    while wanted:
        name = wanted.pop()
        if name in constants or name in inputs:
            continue
        if name not in makers:
            raise UserError(f"the ONNX graph needs the tensor {name!r}, which nothing in it makes; export it again")
        if makers[name] not in reads:
            reads[makers[name]] = tuple(dict.fromkeys(read_by(nodes[makers[name]])))
            wanted.extend(reads[makers[name]])
    makers = {name: position for name, position in makers.items() if position in reads}
    readers: dict[str, list[int]] = defaultdict(list)
    for position in sorted(reads):
        for name in reads[position]:
            readers[name].append(position)
    needs = {
        position: tuple(dict.fromkeys(makers[name] for name in names if name in makers))
        for position, names in reads.items()
    }
    return Flow(
        model=model,
        order=_sorted(needs),
        makers=makers,
        reads=reads,
        readers={name: tuple(positions) for name, positions in readers.items()},
        needs=needs,
        inputs=inputs,
        outputs=outputs,
        constants=frozenset(constants),
    )


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, and those that its bodies capture from the graph around them."""
    yield from (name for name in node.input if name)
    for body in bodies(node):
        made = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        made |= {name for inner in body.node for name in inner.output}
        captured = [name for inner in body.node for name in read_by(inner)]
        yield from (name for name in (*captured, *(value.name for value in body.output)) if name not in made)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs of an If, Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def name_nodes(model: onnx.ModelProto) -> dict[str, int]:
    """Gives every node a name of its own, so that the parser's words lead to one node; bodies included.

    Returns:
        Name of a node, wherever it is -> position of the node of the main graph that it belongs to.
    """
    taken: dict[str, int] = {}
    for position, node in enumerate(model.graph.node):
        for inner in _with_inner(node):
            name = inner.name or f"{inner.op_type}_{position}"
            if name in taken:
                name = next(f"{name}_{count}" for count in range(2, len(taken) + 3) if f"{name}_{count}" not in taken)
            inner.name = name
            taken[name] = position
    return taken


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for body in bodies(node):
        for inner in body.node:
            yield from _with_inner(inner)


def _sorted(needs: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    """The positions so that each comes after those that it needs, in the file's order where that is free."""
    missing = {position: len(before) for position, before in needs.items()}
    after: dict[int, list[int]] = defaultdict(list)
    for position, before in needs.items():
        for one in before:
            after[one].append(position)
    if all(one < position for position, before in needs.items() for one in before):
        return tuple(sorted(needs))
    ready = sorted((position for position, count in missing.items() if not count), reverse=True)
    order = []
    while ready:
        position = ready.pop()
        order.append(position)
        for one in after[position]:
            missing[one] -= 1
            if not missing[one]:
                ready.append(one)
    if len(order) < len(needs):
        raise UserError("the ONNX graph has a cycle: a node needs what it makes itself; export it again")
    return tuple(order)
