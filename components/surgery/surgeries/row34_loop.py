"""Row 34: Loop (and Scan) whose state grows; TensorRT wants one shape for all rounds.

A loop is unrolled when its number of rounds is known: a constant, or a condition that counts constants. What depends
on constants only is computed on the way, so a counter in the state is one of them. A loop whose state keeps its shape
runs in TensorRT as it is, and is unrolled only where that costs hardly any nodes. A list that a loop of unknown length
appends to becomes an output that it collects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.graphs import constant, has_subgraphs, scalar, static_shape
from components.surgery.surgeries.collected_lists import collect_lists
from components.surgery.surgeries.copying import copy_node, own_constants
from components.surgery.surgery import Change, Options, Surgery, label, refusal

MAX_NODES = 20_000
"""Nodes that a loop with growing state may become."""
MAX_NODES_STABLE = 256
"""Nodes that a loop which TensorRT runs as it is may become."""
_MAX_FOLDED = 2**16
"""Bytes up to which a result is computed here."""
_WHY = "TensorRT wants the state of a loop to keep its shape"
_WAY_OUT = "make the number of rounds a constant of the export, or preallocate the state and write into it by index"


class _NotUnrollableError(Exception):
    """Why a loop stays."""


@dataclass
class _Unrolled:
    """The nodes so far, and what is in the loop's variables."""

    states: list[gs.Tensor]
    nodes: list[gs.Node] = field(default_factory=list)
    rounds: int = 0
    collected: list[list[gs.Tensor]] = field(default_factory=list)
    """For each scan output, its value of each round."""


def matches(graph: gs.Graph) -> bool:
    """Whether there is a Loop or Scan."""
    return any(node.op in ("Loop", "Scan") for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Unrolls those that have to be and can be, or are small."""
    changes: list[Change] = []
    gone: set[int] = set()
    for node in [node for node in graph.nodes if node.op in ("Loop", "Scan") and label(node) not in options.skip]:
        grows, surely = _growth(node)
        try:
            changes.append(_unroll(graph, node, grows=grows))
            gone.add(id(node))
        except _NotUnrollableError as error:
            emit = Emitter(graph, f"{label(node)}/collected")
            lists = collect_lists(emit, node) if node.op == "Loop" else 0
            if lists:
                changes.append(Change(label(node), _WHY, f"{lists} lists that it appends to are collected outputs now"))
            elif surely:
                changes.append(refusal(node, f"{_WHY}, and {error}", _WAY_OUT))
    if gone:
        graph.nodes = [node for node in graph.nodes if id(node) not in gone]
    return changes


def _growth(node: gs.Node) -> tuple[bool, bool]:
    """Whether the state may change its shape from round to round, and whether it is known to."""
    body = node.attrs["body"]
    if node.op == "Scan":
        return False, False
    given = [*zip(node.inputs[2:], body.inputs[2:], body.outputs[1:], strict=False)]
    found = [_changes_shape(outer, before, after) for outer, before, after in given]
    return any(may for may, _ in found), any(must for _, must in found)


def _changes_shape(outer: gs.Tensor, before: gs.Tensor, after: gs.Tensor) -> tuple[bool, bool]:
    if any(getattr(tensor, "type", "") == "sequence_type" for tensor in (outer, before, after)):
        return True, True
    if outer.inputs and outer.inputs[0].op in ("SequenceEmpty", "SequenceConstruct", "SplitToSequence"):
        return True, True
    if before is after:
        return False, False
    if outer.shape is None or after.shape is None:
        return True, False
    if static_shape(outer) is not None and static_shape(outer) == static_shape(after):
        return False, False
    shapes = list(zip(before.shape if before.shape is not None else outer.shape, after.shape, strict=False))
    different = len(outer.shape) != len(after.shape) or any(
        a is not None and b is not None and a != b for a, b in shapes
    )
    return True, different


def _unroll(graph: gs.Graph, node: gs.Node, *, grows: bool) -> Change:
    name, body = label(node), node.attrs["body"]
    emit = Emitter(graph, f"{name}/unrolled")
    before, own = len(graph.nodes), own_constants(body)
    limit = (MAX_NODES if grows else MAX_NODES_STABLE) // max(len(body.nodes), 1)
    try:
        unrolled = _scan(emit, node, limit) if node.op == "Scan" else _loop(emit, node, limit)
    except _NotUnrollableError:
        _forget(graph.nodes[before:])
        del graph.nodes[before:]
        raise
    fixed = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    for tensor in own:
        if id(tensor) not in fixed:
            tensor.name = f"{emit.prefix}/{tensor.name}"
    results, axes = list(node.outputs), _stacking(node, len(unrolled.collected))
    node.outputs.clear()
    node.inputs.clear()
    stacked = [
        _stack(emit, values, axis, backwards=back)
        for values, (axis, back) in zip(unrolled.collected, axes, strict=True)
    ]
    for result, made in zip(results, [*unrolled.states, *stacked], strict=True):
        if result.name:
            # The Identity keeps the name of the loop's output, whoever reads it.
            result.shape = None
            identity = emit("Identity", made, dtype=result.dtype).inputs[0]
            identity.outputs = [result]
    why = _WHY if grows else "a loop hides its operators from TensorRT's fusions, and this one is short"
    return Change(name, why, f"unrolled: {unrolled.rounds} rounds of {len(body.nodes)} nodes")


def _loop(emit: Emitter, node: gs.Node, limit: int) -> _Unrolled:
    body = node.attrs["body"]
    most, go_on = _given(node, 0), _given(node, 1)
    count = len(body.inputs) - 2
    state = _Unrolled(list(node.inputs[2 : 2 + count]), collected=[[] for _ in body.outputs[1 + count :]])
    while most is None or state.rounds < most:
        if go_on is not None and not go_on:
            break
        if state.rounds >= limit:
            raise _NotUnrollableError(f"it has more than {limit} rounds of {len(body.nodes)} nodes")
        number, condition = np.array(state.rounds, np.int64), np.array(True)
        heads = [emit.constant(number), emit.constant(condition), *state.states]
        made = _round(emit, body, heads, state.rounds)
        known = constant(made[0])
        if known is None:
            raise _NotUnrollableError("whether it goes on depends on the data")
        go_on = bool(known.reshape(()))
        _advance(state, made[1:], count)
    _check_collected(state)
    return state


def _scan(emit: Emitter, node: gs.Node, limit: int) -> _Unrolled:
    body = node.attrs["body"]
    scanned = int(node.attrs["num_scan_inputs"])
    count = len(body.inputs) - scanned
    if len(node.inputs) != len(body.inputs):
        raise _NotUnrollableError("it is of the form before opset 9")
    given = node.inputs[count:]
    shapes = [static_shape(tensor) for tensor in given[:1]]
    axes = node.attrs.get("scan_input_axes") or [0] * scanned
    backwards = node.attrs.get("scan_input_directions") or [0] * scanned
    if not shapes or shapes[0] is None:
        raise _NotUnrollableError("the length of what it scans is not fixed")
    rounds = shapes[0][int(axes[0])]
    if rounds > limit:
        raise _NotUnrollableError(f"it has {rounds} rounds of {len(body.nodes)} nodes")
    state = _Unrolled(list(node.inputs[:count]), collected=[[] for _ in body.outputs[count:]])
    for number in range(rounds):
        places = [rounds - 1 - number if back else number for back in backwards]
        elements = [
            emit("Gather", tensor, np.array(place, np.int64), dtype=tensor.dtype, axis=int(axis))
            for tensor, place, axis in zip(given, places, axes, strict=True)
        ]
        _advance(state, _round(emit, body, [*state.states, *elements], number), count)
    _check_collected(state)
    return state


def _round(emit: Emitter, body: gs.Graph, heads: Sequence[gs.Tensor], number: int) -> list[gs.Tensor]:
    """Adds the nodes of one round; what the body returns."""
    tensors = {id(inner): outer for inner, outer in zip(body.inputs, heads, strict=True)}
    prefix = f"{emit.prefix}/{number}"
    for node in body.nodes:
        values = _folded(emit, node, [tensors.get(id(tensor), tensor) for tensor in node.inputs])
        if values is None:
            emit.graph.nodes.append(copy_node(node, tensors, prefix))
            continue
        for tensor, value in zip(node.outputs, values, strict=True):
            if tensor.name and value is not None:
                tensors[id(tensor)] = gs.Constant(f"{prefix}/{tensor.name}", value)
    return [tensors.get(id(tensor), tensor) for tensor in body.outputs]


def _folded(emit: Emitter, node: gs.Node, inputs: Sequence[gs.Tensor]) -> list[np.ndarray | None] | None:
    """The node's outputs where they depend on constants only, else None."""
    if has_subgraphs(node) or node.domain not in (None, "", "ai.onnx"):
        return None
    if node.op == "Constant" and isinstance(node.attrs.get("value"), gs.Constant):
        return [node.attrs["value"].values]
    known = [None if tensor.is_empty() else constant(tensor) for tensor in inputs]
    missing = [value is None and not tensor.is_empty() for value, tensor in zip(known, inputs, strict=True)]
    if not inputs or any(missing) or sum(value.nbytes for value in known if value is not None) > _MAX_FOLDED:
        return None
    try:
        values = run_node(node, known, emit.graph)
    except EvaluationError:
        return None
    plain = all(value is None or isinstance(value, np.ndarray) for value in values)
    return values if plain and sum(value.nbytes for value in values if value is not None) <= _MAX_FOLDED else None


def _advance(state: _Unrolled, made: Sequence[gs.Tensor], count: int) -> None:
    state.states = list(made[:count])
    for collected, value in zip(state.collected, made[count:], strict=True):
        collected.append(value)
    state.rounds += 1


def _given(node: gs.Node, position: int) -> int | None:
    """A constant input of a Loop, None where it is left out."""
    if len(node.inputs) <= position or node.inputs[position].is_empty():
        return None
    value = scalar(node.inputs[position])
    if value is None:
        raise _NotUnrollableError("its number of rounds depends on the data")
    return int(value)


def _check_collected(state: _Unrolled) -> None:
    if state.collected and not state.rounds:
        raise _NotUnrollableError("it has no rounds, so the shape of what it collects is unknown")


def _stacking(node: gs.Node, collected: int) -> list[tuple[int, bool]]:
    """Axis and direction of each collected output."""
    axes = node.attrs.get("scan_output_axes") or [0] * collected
    backwards = node.attrs.get("scan_output_directions") or [0] * collected
    return [(int(axis), bool(back)) for axis, back in zip(axes, backwards, strict=True)]


def _stack(emit: Emitter, values: Sequence[gs.Tensor], axis: int, *, backwards: bool) -> gs.Variable:
    place = np.array([axis], np.int64)
    ordered = values[::-1] if backwards else values
    columns = [emit("Unsqueeze", value, place, dtype=value.dtype) for value in ordered]
    return emit("Concat", *columns, dtype=values[0].dtype, axis=axis)


def _forget(nodes: Sequence[gs.Node]) -> None:
    """Takes nodes that were added away from the tensors that they read."""
    for node in nodes:
        node.inputs.clear()
        node.outputs.clear()


SURGERY = Surgery(
    row=34,
    name="Loop with growing state",
    thread="TensorRT 'IRecurrenceLayer must have inputs with same shape'",
    matches=matches,
    apply=apply,
)
