"""All nodes that a runtime refuses, of a runtime that stops at the first ones.

What was refused is cut out and the rest is asked again, until nothing is refused. Nodes like a refused one are asked on
their own at once, so that a model with two hundred NonZeros is not asked two hundred times.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx

from components.core.tensorrt_tools.rules import rule_for
from components.surgery.diagnosis.cuts import alone, readers, without
from components.surgery.diagnosis.nodes import (
    Place,
    attributes,
    constants,
    inside,
    label,
    places,
    readers_of,
    type_name,
    types,
)
from components.surgery.diagnosis.verdict import WHOLE_MODEL, Seen, Stage
from components.surgery.graphs import infer_shapes
from components.surgery.sparse_values import sparse_names

_ROUNDS = 64
_RESHAPING = {
    "Transpose",
    "Cast",
    "Concat",
    "Squeeze",
    "Unsqueeze",
    "Reshape",
    "Flatten",
    "Identity",
    "Slice",
    "Gather",
}


@dataclass(frozen=True)
class Complaint:
    """What a runtime said, and what it says it about, as far as it does."""

    words: str
    operator: str = ""
    name: str = ""
    position: int = -1
    """Of the node in the main graph, or of the node whose body it is in."""
    source: str = ""
    tensor: str = ""
    """Name of a graph input or an initializer, where it is about one."""


@dataclass(frozen=True)
class Failure:
    """A complaint with its node found."""

    node: str
    operator: str
    words: str
    source: str = ""
    stage: Stage = Stage.PARSE
    seen: Seen = Seen.SAID
    attributes: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the answer of a worker."""
        return asdict(self)


Ask = Callable[[onnx.ModelProto], Sequence[Complaint]]


def failures(model: onnx.ModelProto, first: Sequence[Complaint], ask: Ask) -> Iterator[Failure]:
    """Everything that is refused, first what the runtime said of the model as it is.

    Args:
        model: weights in external files may be missing.
        first: what the runtime said of it.
        ask: asks the runtime about another model.
    """
    yield from _Search(model, ask).run(first)


class _Search:
    def __init__(self, model: onnx.ModelProto, ask: Ask) -> None:
        self._model, self._ask = model, ask
        self._types, self._constants = types(infer_shapes(model)), constants(model)
        self._inputs = {value.name for value in model.graph.input}
        self._readers = readers_of(model)
        self._loops = [place.node for place in places(model) if place.node.op_type == "Loop"]
        self._sparse = sparse_names(model)
        self._said: set[tuple[str, str]] = set()

    def run(self, first: Sequence[Complaint]) -> Iterator[Failure]:
        current, complaints, seen = self._model, first, Seen.SAID
        for _ in range(_ROUNDS):
            refused: set[int] = set()
            for complaint in complaints:
                place = self._locate(current, complaint)
                if place is not None:
                    refused.add(place.position)
                yield from self._new(complaint, place, seen)
            # What reads a tensor that is refused can only be judged alone.
            reading = {place for one in complaints if one.tensor for place in readers(current, one.tensor)}
            yield from self._alone([current.graph.node[position] for position in sorted(reading - refused)])
            refused |= reading
            likewise = list(self._likewise(current, complaints))
            for complaint, place in likewise:
                refused.add(place.position)
                yield from self._new(complaint, place, Seen.LIKEWISE)
            for position in sorted(refused):
                yield from self._alone(inside(current.graph.node[position]))
            smaller = without(current, refused, self._types) if refused else None
            if smaller is None:
                return
            current, seen = smaller, Seen.BEHIND
            complaints = self._ask(current)
            if not complaints:
                return

    def _new(self, complaint: Complaint, place: Place | None, seen: Seen) -> Iterator[Failure]:
        """The failure, unless it was reported."""
        words = complaint.words
        given: dict[str, object] = {}
        if place is not None:
            name, operator, given = label(place.node), place.node.op_type, self._attributes(place.node)
        elif complaint.tensor:
            operator = "input" if complaint.tensor in self._inputs else "initializer"
            name, words = f"{operator} {complaint.tensor}", f"its type is {self._type(complaint.tensor)}. {words}"
            read_by = {node.op_type for node in self._readers.get(complaint.tensor, ())}
            given = {"quantizer": bool(read_by) and read_by <= {"QuantizeLinear", "DequantizeLinear"}}
            given["kind"] = self._kind(complaint.tensor)
        else:
            name, operator = complaint.name or WHOLE_MODEL, complaint.operator
        if (name, words) not in self._said:
            self._said.add((name, words))
            yield Failure(name, operator, words, complaint.source, seen=seen, attributes=given)

    def _kind(self, tensor: str) -> str:
        """``tensor``, ``sequence``, ``optional`` ..."""
        kind = self._types[tensor].WhichOneof("value") if tensor in self._types else None
        return "tensor" if kind is None else kind.removesuffix("_type")

    def _type(self, tensor: str) -> str:
        if tensor in self._constants:
            return type_name(self._constants[tensor].data_type)
        if (kind := self._kind(tensor)) != "tensor":
            return kind
        return type_name(self._types[tensor].tensor_type.elem_type) if tensor in self._types else "unknown"

    def _attributes(self, node: onnx.NodeProto) -> dict[str, object]:
        bytes_in = any(name in self._inputs and self._type(name) == "UINT8" for name in node.input)
        sparse = not self._sparse.isdisjoint((*node.input, *node.output))
        found = attributes(node) | {"uint8_input": bytes_in, "sparse": sparse}
        if node.op_type == "NonZero":
            found["writes"] = self._writes(node)
        if "Sequence" in node.op_type:
            found["gathers"] = self._of_a_bag(node)
        return found

    def _of_a_bag(self, node: onnx.NodeProto) -> bool:
        """Whether a sequence is the state or the result of a Loop that looks like an EmbeddingBag."""
        around = [reader for name in node.output for reader in self._readers.get(name, ())]
        around += [loop for loop in self._loops if not set(loop.output).isdisjoint(node.input)]
        return any(attributes(one).get("gathers") for one in around)

    def _writes(self, node: onnx.NodeProto) -> bool:
        """Whether a NonZero only says where to write (`x[mask] = value`) and not what to read (`x[mask]`)."""
        ends, wanted, seen = set(), list(node.output), set(node.output)
        while wanted:
            for reader in self._readers.get(wanted.pop(), ()):
                if reader.op_type not in _RESHAPING:
                    ends.add(reader.op_type)
                    continue
                wanted += [name for name in reader.output if name not in seen]
                seen.update(reader.output)
        return "ScatterND" in ends and ends <= {"ScatterND", "Shape", "Size"}

    def _locate(self, model: onnx.ModelProto, complaint: Complaint) -> Place | None:
        if complaint.tensor:
            return None
        nodes = model.graph.node
        if 0 <= complaint.position < len(nodes):
            top = nodes[complaint.position]
            if complaint.operator in ("", top.op_type):
                return Place(top, complaint.position, False)
            candidates = [Place(node, complaint.position, True) for node in inside(top)]
        else:
            candidates = list(places(model))
        named = [
            place
            for place in candidates
            if complaint.operator in ("", place.node.op_type)
            and (not complaint.name or complaint.name in (place.node.name, *place.node.output))
        ]
        if not complaint.operator and not complaint.name:
            return None
        if len(named) > 1 and not complaint.name:
            named = [place for place in named if self._complaint_alone(place.node)] or named
        if not named and 0 <= complaint.position < len(nodes):  # in a function that the node calls
            return Place(nodes[complaint.position], complaint.position, False)
        return named[0] if named else None

    def _likewise(self, model: onnx.ModelProto, complaints: Sequence[Complaint]) -> Iterator[tuple[Complaint, Place]]:
        """Nodes with an operator that was refused, of which the runtime says the same when asked about them alone."""
        located = {tuple(place.node.output) for one in complaints if (place := self._locate(model, one)) is not None}
        about = {(one.operator, one.source) for one in complaints if one.operator}
        operators = {operator for operator, _ in about}
        for place in places(model):
            if place.node.op_type not in operators or tuple(place.node.output) in located:
                continue
            said = self._complaint_alone(place.node)
            if said is not None and (place.node.op_type, said.source) in about:
                yield said, place

    def _alone(self, nodes: Iterable[onnx.NodeProto]) -> Iterator[Failure]:
        """What is said of nodes that are cut out unheard, where a rule is known for it."""
        for node in nodes:
            said = self._complaint_alone(node)
            if said is not None and rule_for(node.op_type, said.words, self._attributes(node)):
                yield from self._new(said, Place(node, -1, True), Seen.LIKEWISE)

    def _complaint_alone(self, node: onnx.NodeProto) -> Complaint | None:
        part = alone(self._model, node, self._types, self._constants)
        if part is None:
            return None
        said = [one for one in self._ask(part) if not one.tensor]
        return next((one for one in said if one.operator in ("", node.op_type)), None)
