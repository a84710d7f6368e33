"""Cuts a graph of nodes for an engine and for the remainder into as few parts as possible that run in order."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from components.surgery.partition.flow import Flow, bodies

WORK = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN", "Attention", "DeformConv"})
"""Operators of which one is enough to make an engine worth its start and the copies to and from the GPU."""


class Stretch(NamedTuple):
    """Nodes that run together."""

    engine: bool
    nodes: tuple[int, ...]
    """In running order."""


def schedule(flow: Flow, refused: Collection[int]) -> tuple[list[Stretch], set[int]]:
    """Stretches in running order, alternately for an engine and for the remainder.

    The number of engine stretches is the least possible: the most engine stretches that any one path through the graph
    crosses. Every stretch is convex: what it reads was made before it.

    Args:
        flow: the graph.
        refused: positions of the nodes that no engine takes.

    Returns:
        The stretches; and the positions that were given to the remainder although an engine takes them, since what
        hangs together there has none of `WORK`.
    """
    small: set[int] = set()
    while True:
        stretches = _stretches(flow, set(refused) | small)
        idle = {
            position
            for stretch in stretches
            if stretch.engine
            for group in _connected(flow, stretch.nodes)
            if not any(work_of(flow, group).values())
            for position in group
        }
        if not idle:
            return stretches, small
        small |= idle


def work_of(flow: Flow, positions: Collection[int]) -> dict[str, int]:
    """Operator of `WORK` -> how many of it, those in bodies included."""
    counts: dict[str, int] = defaultdict(int)
    pending = [flow.model.graph.node[position] for position in positions]
    while pending:
        node = pending.pop()
        if node.op_type in WORK:
            counts[node.op_type] += 1
        pending.extend(inner for body in bodies(node) for inner in body.node)
    return dict(sorted(counts.items()))


def _stretches(flow: Flow, remainder: Collection[int]) -> list[Stretch]:
    """The better of two ways: beginning with an engine, or with the remainder."""
    return min(
        (_levelled(flow, remainder, engine_first) for engine_first in (True, False)),
        key=lambda found: (sum(stretch.engine for stretch in found), len(found)),
    )


def _levelled(flow: Flow, remainder: Collection[int], engine_first: bool) -> list[Stretch]:
    """Every node as early as possible, where a path may change sides only from one level to the next."""
    levels: dict[int, int] = {}
    for position in flow.order:
        engine = position not in remainder
        first = 0 if engine == engine_first else 1
        # Levels alternate between the sides, so that a node of the other side is an odd number of levels away.
        before = (levels[one] + ((one not in remainder) != engine) for one in flow.needs[position])
        levels[position] = max((first, *before))
    found: Mapping[int, list[int]] = defaultdict(list)
    for position in flow.order:
        found[levels[position]].append(position)
    return [Stretch(level % 2 == (0 if engine_first else 1), tuple(found[level])) for level in sorted(found)]


def _connected(flow: Flow, nodes: Sequence[int]) -> list[list[int]]:
    """The nodes in groups that hang together by tensors that are made among them."""
    parent = {position: position for position in nodes}

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    for position in nodes:
        for one in flow.needs[position]:
            if one in parent:
                parent[root(one)] = root(position)
    groups: dict[int, list[int]] = defaultdict(list)
    for position in nodes:
        groups[root(position)].append(position)
    return list(groups.values())
