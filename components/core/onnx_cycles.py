"""Finds nodes of an ONNX graph that need what they make themselves, which no runtime can run and no tool can sort."""

from collections.abc import Iterator, Sequence

import onnx


def find_cycle(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes of one cycle, each reading what the one before makes; empty where there is none.

    Bodies of If, Loop and Scan are looked into; what they read from outside counts as an input of their node. Takes
    time linear in the nodes, whatever their order.
    """
    nodes = list(graph.node)
    for node in nodes:
        for body in _bodies(node):
            if found := find_cycle(body):
                return found
    makers = {name: position for position, node in enumerate(nodes) for name in node.output if name}
    needed = [[makers[name] for name in _reads(node) if name in makers] for node in nodes]
    if all(maker < position for position, before in enumerate(needed) for maker in before):
        return []
    return [nodes[position] for position in _cycle(needed)]


def _cycle(needed: Sequence[Sequence[int]]) -> list[int]:
    """Positions of a cycle, by a search in depth without recursion."""
    done, path = [False] * len(needed), [False] * len(needed)
    for start in range(len(needed)):
        if done[start]:
            continue
        way, waiting = [start], [iter(needed[start])]
        path[start] = True
        while way:
            following = next(waiting[-1], None)
            if following is None:
                path[way[-1]] = False
                done[way.pop()] = True
                waiting.pop()
            elif path[following]:
                return way[way.index(following) :][::-1]
            elif not done[following]:
                path[following] = True
                way.append(following)
                waiting.append(iter(needed[following]))
    return []


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those in its bodies too; a body's own names may be among them."""
    yield from node.input
    for body in _bodies(node):
        own = {value.name for value in (*body.input, *body.initializer)}
        own.update(name for inner in body.node for name in inner.output)
        names = [name for inner in body.node for name in _reads(inner)] + [value.name for value in body.output]
        yield from (name for name in names if name not in own)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
