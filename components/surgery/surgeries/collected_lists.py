"""Lists that a Loop appends to, as outputs that it collects: ``rows.append(row)`` and ``torch.stack(rows)``.

A scripted loop keeps the list in its state, which grows. What every round appends is the same as one more scan output,
and a Loop with those is what TensorRT builds, for any number of rounds.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.reading import Node


def collect_lists(emit: Emitter, loop: gs.Node) -> int:
    """Makes scan outputs of the lists in a Loop's state that are only appended to and joined.

    Args:
        emit: writes what joins the collected values behind the loop.
        loop: is changed.

    Returns:
        How many lists there were.
    """
    found = 0
    for place in reversed(range(len(loop.inputs) - 2)):
        joins = _joins(loop, place)
        if joins is not None:
            _collect(emit, loop, place, joins)
            found += 1
    return found


def _joins(loop: gs.Node, place: int) -> list[gs.Node] | None:
    """What joins a list behind the loop; None where the state is no list that is only appended to."""
    body, start = loop.attrs["body"], loop.inputs[2 + place]
    if not start.inputs or start.inputs[0].op != "SequenceEmpty":
        return None
    given, made = body.inputs[2 + place], body.outputs[1 + place]
    if len(given.outputs) != 1 or not made.inputs or made.inputs[0] is not given.outputs[0] or made.outputs:
        return None
    append = made.inputs[0]
    if append.op != "SequenceInsert" or append.inputs[0] is not given or len(append.inputs) > 2:
        return None
    joins = list(loop.outputs[place].outputs)
    if not joins or any(node.op != "ConcatFromSequence" for node in joins):
        return None
    return joins if all(_order(node, append.inputs[1]) is not None for node in joins) else None


def _order(join: gs.Node, value: gs.Tensor) -> tuple[list[int], list[int] | None] | None:
    """How what a loop collects is transposed, and then reshaped, to be the joined list."""
    axis, new_axis = int(join.attrs["axis"]), bool(join.attrs.get("new_axis", 0))
    if value.shape is None:
        return ([], None) if axis == 0 and new_axis else None
    rank = len(value.shape) + new_axis
    axis %= rank
    others = list(range(1, len(value.shape) + 1))
    order = [*others[:axis], 0, *others[axis:]]
    if new_axis:
        return order, None
    behind = list(value.shape[axis + 1 :])
    if not all(isinstance(side, int | np.integer) for side in behind):
        return None
    return order, [0] * axis + [-1] + [int(side) for side in behind]


def _collect(emit: Emitter, loop: gs.Node, place: int, joins: Sequence[gs.Node]) -> None:
    body = loop.attrs["body"]
    append = body.outputs[1 + place].inputs[0]
    value = append.inputs[1]
    name = f"{emit.prefix}/list_{place}"
    each = gs.Variable(f"{name}_row", dtype=value.dtype, shape=value.shape)
    every = gs.Variable(name, dtype=value.dtype)
    body.nodes.append(Node("Identity", name=f"{name}_row", inputs=[value], outputs=[each]))
    body.outputs.append(each)
    loop.outputs.append(every)
    for join in joins:
        order, shape = _order(join, value) or ([], None)
        made = every
        if order and order != sorted(order):
            made = emit("Transpose", made, dtype=value.dtype, perm=order)
        if shape is not None:
            made = emit.reshape(made, shape, dtype=value.dtype)
        emit.finish(emit("Identity", made, dtype=value.dtype), join.outputs[0])
        join.inputs.clear()
    append.inputs.clear()
    append.outputs.clear()
    del body.inputs[2 + place], body.outputs[1 + place], loop.inputs[2 + place], loop.outputs[place]
