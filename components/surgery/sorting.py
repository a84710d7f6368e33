"""The order of a graph's nodes, and which of them are needed, in linear time and without recursion over nodes."""

from collections.abc import Iterable, Iterator

import onnx_graphsurgeon as gs


def bodies(node: gs.Node) -> Iterator[tuple[str, gs.Graph]]:
    """The graphs of a node's own (of If, Loop, Scan) and the attributes they are in."""
    for name, value in node.attrs.items():
        if isinstance(value, gs.Graph):
            yield name, value


def is_body(graph: gs.Graph) -> bool:
    """Whether the graph is the body of a node and not a whole model."""
    return graph.ir_version is None


def prune_and_sort(graph: gs.Graph) -> set[str]:
    """Drops nodes that no output needs and puts the others in an order to run in; bodies first.

    Nodes that are in order already stay in it.

    Returns:
        Names of tensors that come from outside the graph.

    Raises:
        ValueError: the nodes form a cycle.
    """
    return _arrange(graph, prune=True)


def sort(graph: gs.Graph) -> None:
    """Puts the nodes in an order to run in, those of bodies too; all stay.

    Raises:
        ValueError: the nodes form a cycle.
    """
    _arrange(graph, prune=False)


def _arrange(graph: gs.Graph, *, prune: bool) -> set[str]:
    reads = [_reads(node, prune=prune) for node in graph.nodes]
    given = {tensor.name for tensor in graph.inputs}
    makers = {
        tensor.name: position
        for position, node in enumerate(graph.nodes)
        for tensor in node.outputs
        if tensor.name and tensor.name not in given
    }
    needed = [[makers[name] for name in names if name in makers] for names in reads]
    kept: Iterable[int] = range(len(needed))
    if prune:
        kept = sorted(_reachable([makers[tensor.name] for tensor in graph.outputs if tensor.name in makers], needed))
    order = _order(kept, needed)
    graph.nodes = [graph.nodes[position] for position in order]
    names = {name for position in order for name in reads[position]} | {tensor.name for tensor in graph.outputs}
    return {name for name in names if name not in makers and name not in given}


def _reads(node: gs.Node, *, prune: bool) -> list[str]:
    names = [tensor.name for tensor in node.inputs if tensor.name]
    for _, body in bodies(node):
        names += _arrange(body, prune=prune)
    return names


def _reachable(start: Iterable[int], needed: list[list[int]]) -> set[int]:
    seen, stack = set(start), list(start)
    while stack:
        for position in needed[stack.pop()]:
            if position not in seen:
                seen.add(position)
                stack.append(position)
    return seen


def _order(positions: Iterable[int], needed: list[list[int]]) -> list[int]:
    order: list[int] = []
    state: dict[int, bool] = {}
    for start in positions:
        stack = [(start, iter(needed[start]))] if start not in state else []
        state.setdefault(start, False)
        while stack:
            position, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                state[position] = True
                order.append(position)
            elif following not in state:
                state[following] = False
                stack.append((following, iter(needed[following])))
            elif not state[following]:
                raise ValueError("the nodes of the graph form a cycle")
    return order
