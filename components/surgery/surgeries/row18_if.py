"""Row 18: `If` (TensorRT #1731, #4603), mostly from ``squeeze(dim)`` of a dimension that the exporter did not know.

The two branches then have outputs of different rank, which TensorRT parses and cannot build. A branch whose condition
is constant, or becomes so by the shapes, is moved into the graph. Where the condition asks for an open dimension to
be 1, the dimension is pinned: the model was exported to squeeze it.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import constant, scalar
from components.surgery.reading import Node
from components.surgery.sorting import bodies
from components.surgery.surgery import EVERY_TARGET, TENSORRT_TARGETS, Change, Options, Surgery, label, refusal


def matches(graph: gs.Graph) -> bool:
    """Whether there is an If."""
    return any(node.op == "If" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Moves the branch that is taken into the graph."""
    changes: list[Change] = []
    gone: set[int] = set()
    for node in [node for node in graph.nodes if node.op == "If" and label(node) not in options.skip]:
        condition = constant(node.inputs[0])
        if condition is not None and condition.size == 1:
            taken = "then_branch" if bool(condition.reshape(())) else "else_branch"
            why = "TensorRT cannot build an If whose branches differ in rank; the condition is constant here"
            changes.append(_inline(graph, node, taken, why, "the condition is constant"))
            gone.add(id(node))
            continue
        pinned = _pin_squeezed(graph, node)
        if pinned is None:
            if options.target not in TENSORRT_TARGETS or _alike(node):
                continue
            way_out = (
                "make the condition independent of the input, or fix the shapes (--input-shape, target.input_shape)"
            )
            why = "its condition depends on the input, and its branches differ in rank or have one that is not known"
            changes.append(refusal(node, why, way_out))
            continue
        why = f"TensorRT cannot build an If whose branches differ in rank; the condition asks whether {pinned} is 1"
        changes.append(_inline(graph, node, "then_branch", why, f"{pinned} is pinned to 1"))
        gone.add(id(node))
    if gone:
        graph.nodes = [node for node in graph.nodes if id(node) not in gone]
    return changes


def _alike(node: gs.Node) -> bool:
    """Whether the branches have the same ranks, so that TensorRT can choose between them at run time."""
    branches = [body.outputs for body in (node.attrs["then_branch"], node.attrs["else_branch"])]
    ranks = [[None if one.shape is None else len(one.shape) for one in outputs] for outputs in branches]
    return ranks[0] == ranks[1] and None not in ranks[0]


def _inline(graph: gs.Graph, node: gs.Node, branch: str, why: str, because: str) -> Change:
    """Puts the nodes of a branch in the place of the If; their names stay unique by the If's."""
    body: gs.Graph = node.attrs[branch]
    name = label(node)
    results = list(node.outputs)
    node.outputs.clear()
    node.inputs.clear()
    for tensor in _own_tensors(graph, body):
        tensor.name = f"{name}/{tensor.name}"
    for inner in body.nodes:
        inner.name = f"{name}/{inner.name or inner.op}"
        graph.nodes.append(inner)
    for result, tensor in zip(results, body.outputs, strict=True):
        # The Identity keeps the name of the If's output, whoever reads it: nodes, subgraphs or the graph's user.
        result.dtype = result.dtype if result.dtype is not None else tensor.dtype
        result.shape = None
        graph.nodes.append(Node("Identity", name=f"{name}/{result.name}", inputs=[tensor], outputs=[result]))
    what = f"{branch.replace('_', ' ')} ({len(body.nodes)} nodes) moved into the graph, since {because}"
    return Change(node=name, why=why, what=what)


def _own_tensors(graph: gs.Graph, body: gs.Graph) -> list[gs.Tensor]:
    """The tensors of a body that nothing around it knows: what its nodes make, and constants that only they read."""
    made = [tensor for node in body.nodes for tensor in node.outputs if tensor.name]
    inside = _nodes_within(body)
    outside = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    read = [*body.outputs, *(tensor for node in body.nodes for tensor in node.inputs)]
    constants = {id(tensor): tensor for tensor in read if isinstance(tensor, gs.Constant) and id(tensor) not in outside}
    return [*made, *(c for c in constants.values() if all(id(reader) in inside for reader in c.outputs))]


def _nodes_within(body: gs.Graph) -> set[int]:
    found, waiting = set(), [body]
    while waiting:
        for node in waiting.pop().nodes:
            found.add(id(node))
            waiting += [inner for _, inner in bodies(node)]
    return found


def _pin_squeezed(graph: gs.Graph, node: gs.Node) -> str | None:
    """Pins the dimension that the If squeezes, if it is one of a graph input; what was pinned, for the report."""
    asked = _asked_dimension(node.inputs[0])
    if asked is None:
        return None
    x, axis = asked
    squeezes = [inner for inner in node.attrs["then_branch"].nodes if inner.op in ("Squeeze", "Identity", "Constant")]
    if not any(inner.op == "Squeeze" for inner in squeezes):
        return None
    if x.shape is None or not -len(x.shape) <= axis < len(x.shape):
        return None
    size = x.shape[axis]
    for given in graph.inputs:
        for position, other in enumerate(given.shape or ()):
            is_it = given is x and position == axis % len(x.shape)
            if is_it or (isinstance(size, str) and other == size and not size.startswith("unk__")):
                given.shape = [1 if index == position else value for index, value in enumerate(given.shape)]
                return f"dimension {position} of input {given.name!r}"
    return None


def _asked_dimension(condition: gs.Tensor) -> tuple[gs.Tensor, int] | None:
    """The tensor and axis of ``Equal(Gather(Shape(x), axis), 1)``, through Identity, Cast, Squeeze and Reshape."""
    equal = _maker(condition)
    if equal is None or equal.op != "Equal":
        return None
    for asked, one in (equal.inputs, reversed(equal.inputs)):
        gather = _maker(asked)
        if scalar(one) != 1 or gather is None:
            continue
        shape = _maker(gather.inputs[0])
        if gather.op == "Gather" and shape is not None and shape.op == "Shape":
            axis = scalar(gather.inputs[1])
            return None if axis is None else (shape.inputs[0], int(axis))
        if gather.op == "Shape" and isinstance(gather.attrs.get("start"), int | np.integer):
            return gather.inputs[0], int(gather.attrs["start"])
    return None


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    """The node that makes a tensor, looking through those that only rename, retype or reshape it."""
    while tensor.inputs:
        node = tensor.inputs[0]
        if node.op not in ("Identity", "Cast", "Squeeze", "Reshape", "Unsqueeze"):
            return node
        tensor = node.inputs[0]
    return None


SURGERY = Surgery(
    row=18,
    name="If",
    thread="TensorRT #1731, #4603",
    matches=matches,
    apply=apply,
    targets=EVERY_TARGET,
)
