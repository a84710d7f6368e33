"""What a surgery is: one pattern of the acceptance table, what it matches and what it does to the graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from components.core.contracts.job import Runtime

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

TENSORRT_TARGETS = frozenset({Runtime.TENSORRT, Runtime.TENSORRT_RTX})
EVERY_TARGET = frozenset(Runtime) - {Runtime.TORCH}
TOLERANCE = 1e-5
"""Largest accepted error of a float output, relative to its largest magnitude; integers and booleans must be equal."""

WHOLE_GRAPH = "whole graph"
"""What a change names where it is about no node."""


class Outcome(StrEnum):
    """What became of a match."""

    DONE = "done"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class Options:
    """Choices that a surgery cannot make from the graph alone."""

    nms_rounds: int = 32
    """Rounds of the fixed-point NMS (row 12): the longest chain of boxes, each suppressing the next, that is exact."""
    sampling_ratio: int | None = None
    """Samples a bin and direction for a RoiAlign (row 14) that leaves the number to the size of each box."""
    target: Runtime = Runtime.TENSORRT_RTX
    """Runtime that the model is for; `operate` sets it."""
    input_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Shapes for inputs with open dimensions (row 40), by name; "" for every other input of that many dimensions."""
    skip: frozenset[str] = frozenset()
    """Labels of nodes (`label`) to leave alone."""


@dataclass(frozen=True)
class Change:
    """What a surgery did, or why it did not, at one place.

    A surgery that replaces a piece of the graph keeps the names of the tensors at its border; the proof then feeds the
    old and the new piece the same real activations.
    """

    node: str
    """`label` of the node."""
    why: str
    """Why the pattern is a problem here, or why it was refused."""
    what: str
    """What was done about it; for a refusal, the way out."""
    outcome: Outcome = Outcome.DONE
    inputs: tuple[str, ...] = ()
    """Tensors that enter the piece; empty: only whole models can be compared."""
    outputs: tuple[str, ...] = ()
    """Tensors that leave the piece."""
    padded: tuple[str, ...] = ()
    """Outputs that grew: their first rows are the old ones, padding follows."""
    tolerance: float = TOLERANCE
    """Accepted relative error here, when float32 itself cannot do better; then `what` says so."""
    span: float | None = None
    """Full scale of a quantizer, where a rounding may fall the other way: errors are then relative to it, and
    integers may differ."""


Apply = Callable[["gs.Graph", Options], Sequence[Change]]
Matches = Callable[["gs.Graph"], bool]


@dataclass(frozen=True)
class Surgery:
    """One row of the acceptance table.

    `matches` is cheap and changes nothing. `apply` changes the graph in place and says what it did at each match;
    with no change to make it leaves the graph as it was. Doing it twice is doing it once.
    """

    row: int
    """Row of the table; 0 is constant folding."""
    name: str
    thread: str
    """The issue that users reported it in."""
    matches: Matches = field(repr=False)
    apply: Apply = field(repr=False)
    targets: frozenset[Runtime] = TENSORRT_TARGETS


def label(node: "gs.Node") -> str:
    """How reports name a node: its name, or its operator and first output."""
    if node.name:
        return str(node.name)
    return f"{node.op} -> {node.outputs[0].name}" if node.outputs else str(node.op)


def refusal(node: "gs.Node", why: str, way_out: str) -> Change:
    """A match that is left as it is, with the reason and what the user can do."""
    return Change(node=label(node), why=why, what=way_out, outcome=Outcome.REFUSED)
