"""Row 19: sequences of tensors (SplitToSequence, SequenceConstruct, SequenceInsert ...), which TensorRT does not have.

Exporters write them for ``split``, ``unbind``, ``chunk``, ``stack`` and for Python lists. Where the tensors in a
sequence can be told, whatever reads one gets its tensor, and the sequence is gone. A part that is cut from an open
dimension is a Slice of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, optional_input, scalar, static_shape
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_READERS = ("SequenceAt", "SequenceLength", "ConcatFromSequence")
_MAKERS = ("SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence")
MAX_PARTS = 4096
"""Tensors that a sequence may be split into."""
_WHY = "TensorRT has no sequences of tensors"
_WAY_OUT = "give the split dimension a fixed size, index with constants, and return tensors instead of lists"


class _UnknownError(Exception):
    """Why the tensors of a sequence cannot be told."""


@dataclass(frozen=True)
class _Parts:
    """A split of an open dimension: the number of parts is not known, each part is."""

    tensor: gs.Tensor
    axis: int
    size: int
    """Of each part but the last."""
    keepdims: bool


@dataclass
class _Sequences:
    graph: gs.Graph
    known: dict[int, list[gs.Tensor] | _Parts] = field(default_factory=dict)
    """By the id of the sequence's tensor."""

    def of(self, tensor: gs.Tensor) -> list[gs.Tensor] | _Parts:
        """The tensors in a sequence.

        Raises:
            _UnknownError: they cannot be told.
        """
        # From the end to the start without recursion: a list that was built in a loop is long.
        waiting = [tensor]
        while waiting:
            last = waiting[-1]
            if id(last) in self.known:
                waiting.pop()
                continue
            if not last.inputs:
                raise _UnknownError(f"sequence {last.name!r} comes from outside the graph")
            node = last.inputs[0]
            if node.op in ("SequenceInsert", "SequenceErase", "Identity") and id(node.inputs[0]) not in self.known:
                waiting.append(node.inputs[0])
                continue
            self.known[id(last)] = self._made_by(node)
            waiting.pop()
        return self.known[id(tensor)]

    def _made_by(self, node: gs.Node) -> list[gs.Tensor] | _Parts:
        if node.op == "SequenceEmpty":
            return []
        if node.op == "SequenceConstruct":
            return list(node.inputs)
        if node.op == "SplitToSequence":
            return self._split(node)
        if node.op == "Identity":
            return self.known[id(node.inputs[0])]
        if node.op not in ("SequenceInsert", "SequenceErase"):
            raise _UnknownError(f"the {node.op} {label(node)!r} makes a sequence in a way that is not known")
        tensors = self.known[id(node.inputs[0])]
        if isinstance(tensors, _Parts):
            raise _UnknownError(f"{label(node)!r} changes a sequence whose length is not fixed")
        made, inserts = list(tensors), node.op == "SequenceInsert"
        given = optional_input(node, 2 if inserts else 1)
        end = len(made) if inserts else len(made) - 1
        place = end if given is None else scalar(given)
        if place is None:
            raise _UnknownError(f"the position of {label(node)!r} depends on the data")
        place = int(place) + (len(made) if place < 0 else 0)
        if inserts:
            made.insert(place, node.inputs[1])
        else:
            del made[place]
        return made

    def _split(self, node: gs.Node) -> list[gs.Tensor] | _Parts:
        x, given = node.inputs[0], optional_input(node, 1)
        axis, keepdims = int(node.attrs.get("axis", 0)), bool(node.attrs.get("keepdims", 1)) or given is not None
        sizes = None if given is None else constant(given)
        if given is not None and sizes is None:
            raise _UnknownError(f"the sizes of the parts of {label(node)!r} depend on the data")
        if sizes is None or sizes.ndim == 0:
            each = 1 if sizes is None else int(sizes)
            whole = None if x.shape is None else x.shape[axis]
            if not isinstance(whole, int | np.integer):
                return _Parts(x, axis, each, keepdims)
            if each < 1 or int(whole) > MAX_PARTS * each:
                raise _UnknownError(f"{label(node)!r} cuts {whole} into parts of {each}, more than {MAX_PARTS}")
            sizes = np.array([min(each, int(whole) - start) for start in range(0, int(whole), each)])
        emit = Emitter(self.graph, f"{label(node)}/parts")
        if len(sizes) == 1:
            parts = [x]
        else:
            first = emit("Split", x, sizes.astype(np.int64), dtype=x.dtype, axis=axis)
            outputs = first.inputs[0].outputs
            outputs += [gs.Variable(f"{emit.prefix}/part_{index}", dtype=x.dtype) for index in range(1, len(sizes))]
            parts = list(outputs)
        if keepdims:
            return parts
        return [emit("Squeeze", part, np.array([axis], np.int64), dtype=x.dtype) for part in parts]


def matches(graph: gs.Graph) -> bool:
    """Whether there is a sequence."""
    return any(node.op in _READERS or node.op in _MAKERS for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces what reads sequences; what only makes them falls away."""
    sequences, changes = _Sequences(graph), []
    for node in [node for node in graph.nodes if node.op in _READERS and label(node) not in options.skip]:
        before = len(graph.nodes)
        try:
            changes.append(_replace(graph, node, sequences.of(node.inputs[0])))
        except _UnknownError as error:
            for made in graph.nodes[before:]:
                made.inputs.clear()
            del graph.nodes[before:]
            changes.append(refusal(node, f"{_WHY}; {error}", _WAY_OUT))
    makers = {id(tensor): node for node in graph.nodes if node.op in _MAKERS for tensor in node.outputs}
    leaving = [makers[id(tensor)] for tensor in graph.outputs if id(tensor) in makers]
    changes += [refusal(node, f"{_WHY}; the sequence is an output of the graph", _WAY_OUT) for node in leaving]
    return changes


def _replace(graph: gs.Graph, node: gs.Node, tensors: list[gs.Tensor] | _Parts) -> Change:
    called, result = label(node), node.outputs[0]
    emit = Emitter(graph, f"{called}/plain")
    how: Callable[..., tuple[gs.Variable, str]] = {
        "SequenceAt": _at,
        "SequenceLength": _length,
        "ConcatFromSequence": _concat,
    }[node.op]
    made, what = how(emit, node, tensors)
    emit.finish(made, result)
    return Change(called, _WHY, what)


def _at(emit: Emitter, node: gs.Node, tensors: list[gs.Tensor] | _Parts) -> tuple[gs.Variable, str]:
    place = scalar(node.inputs[1])
    if isinstance(tensors, _Parts):
        if place is None or (place < 0 and tensors.size != 1):
            raise _UnknownError("which part of an open dimension is read depends on the data")
        return _part(emit, tensors, int(place)), f"part {int(place)} is cut out"
    if place is not None:
        tensor = tensors[int(place)]
        return emit("Identity", tensor, dtype=tensor.dtype), f"the tensor at {int(place)} is read itself"
    shapes = {static_shape(tensor) for tensor in tensors}
    if len(shapes) != 1 or None in shapes:
        raise _UnknownError("a run-time index wants tensors of one fixed shape")
    columns = [emit("Unsqueeze", tensor, np.array([0], np.int64), dtype=tensor.dtype) for tensor in tensors]
    stack = emit("Concat", *columns, dtype=tensors[0].dtype, axis=0)
    index = emit.reshape(node.inputs[1], (), dtype=np.int64)
    return emit(
        "Gather", stack, index, dtype=tensors[0].dtype, axis=0
    ), f"{len(tensors)} tensors are stacked for a Gather"


def _part(emit: Emitter, parts: _Parts, place: int) -> gs.Variable:
    if not parts.keepdims:
        return emit("Gather", parts.tensor, np.array(place, np.int64), dtype=parts.tensor.dtype, axis=parts.axis)
    end = (place + 1) * parts.size if place != -1 else np.iinfo(np.int64).max
    bounds = [np.array([value], np.int64) for value in (place * parts.size, end, parts.axis)]
    return emit("Slice", parts.tensor, *bounds, dtype=parts.tensor.dtype)


def _length(emit: Emitter, node: gs.Node, tensors: list[gs.Tensor] | _Parts) -> tuple[gs.Variable, str]:  # noqa: ARG001
    if isinstance(tensors, _Parts):
        shape = emit("Shape", tensors.tensor, dtype=np.int64)
        whole = emit("Gather", shape, np.array(tensors.axis, np.int64), dtype=np.int64, axis=0)
        padded = emit("Add", whole, np.array(tensors.size - 1, np.int64), dtype=np.int64)
        return emit(
            "Div", padded, np.array(tensors.size, np.int64), dtype=np.int64
        ), "its length follows from the shape"
    length = emit.constant(np.array(len(tensors), np.int64))
    return emit("Identity", length, dtype=np.int64), f"its length is {len(tensors)}"


def _concat(emit: Emitter, node: gs.Node, tensors: list[gs.Tensor] | _Parts) -> tuple[gs.Variable, str]:
    axis, new_axis = int(node.attrs["axis"]), bool(node.attrs.get("new_axis", 0))
    if isinstance(tensors, _Parts):
        # Put together as it was taken apart.
        if axis == tensors.axis and axis >= 0 and new_axis is not tensors.keepdims:
            return emit("Identity", tensors.tensor, dtype=tensors.tensor.dtype), "the split tensor itself"
        raise _UnknownError("the number of tensors that it joins is not fixed")
    if not tensors:
        raise _UnknownError("there is no tensor to join")
    dtype = next((tensor.dtype for tensor in tensors if tensor.dtype is not None), None)
    if new_axis:
        tensors = [emit("Unsqueeze", tensor, np.array([axis], np.int64), dtype=dtype) for tensor in tensors]
    return emit("Concat", *tensors, dtype=dtype, axis=axis), f"Concat of {len(tensors)} tensors"


SURGERY = Surgery(
    row=19,
    name="sequences of tensors",
    thread="TensorRT: SplitToSequence, SequenceAt and ConcatFromSequence are not in NVIDIA's list of operators",
    matches=matches,
    apply=apply,
)
