"""Where a node's result goes: for surgeries on constants that only matter to some operator further on (rows 11, 30)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

_MOST = 512
"""Nodes after which a way is not followed further."""


@dataclass
class Way:
    """Everything between a node and the nodes that all its ways end in."""

    nodes: dict[int, gs.Node] = field(default_factory=dict)
    """The node itself and what passes its result on, by id."""
    ends: dict[int, gs.Node] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what enters it, for the proof."""
        made = {id(tensor) for node in self.nodes.values() for tensor in node.outputs}
        names = {
            tensor.name: None
            for node in (*self.nodes.values(), *self.ends.values())
            for tensor in node.inputs
            if isinstance(tensor, gs.Variable) and not tensor.is_empty() and id(tensor) not in made
        }
        return tuple(names)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what leaves it."""
        return tuple(tensor.name for node in self.ends.values() for tensor in node.outputs if tensor.name)


def way(
    start: gs.Node,
    kept: set[int],
    passes: Callable[[gs.Node], bool],
    ends: Callable[[gs.Node, gs.Tensor], bool],
) -> Way | None:
    """Follows the result of a node to its ends.

    Args:
        start: a node with one output.
        kept: ids of the graph's outputs.
        passes: whether a node passes its input on.
        ends: whether a way may end in a node that reads this tensor.

    Returns:
        The way, or None where one branch of it ends somewhere else.
    """
    found = Way({id(start): start})
    waiting = [start]
    while waiting:
        result = waiting.pop().outputs[0]
        if id(result) in kept or not result.outputs or len(found.nodes) > _MOST:
            return None
        for reader in result.outputs:
            if ends(reader, result):
                found.ends[id(reader)] = reader
            elif not passes(reader) or len(reader.outputs) != 1:
                return None
            elif id(reader) not in found.nodes:
                found.nodes[id(reader)] = reader
                waiting.append(reader)
    return found
