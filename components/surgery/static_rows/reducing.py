"""Operators that make one value of many rows: padding is replaced by what changes nothing."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.static_rows.sizes import Sizes, as_sizes
from components.surgery.static_rows.spaces import highest, lowest
from components.surgery.static_rows.values import Index, NotStaticError, Rows
from components.surgery.static_rows.walk import Rule, Value, Walk, called


def _number(value: int) -> Callable[[np.dtype], np.ndarray]:
    return lambda dtype: np.array(value, dtype)


def _least(dtype: np.dtype) -> np.ndarray:
    """The largest of nothing, as ONNX Runtime has it."""
    return np.array(-np.inf, dtype) if dtype.kind == "f" else lowest(dtype)


def _most(dtype: np.dtype) -> np.ndarray:
    return np.array(np.inf, dtype) if dtype.kind == "f" else highest(dtype)


_NEUTRAL: dict[str, Callable[[np.dtype], np.ndarray]] = {
    **{op: _number(0) for op in ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare")},
    "ReduceProd": _number(1),
    "ReduceMax": _least,
    "ReduceMin": _most,
    "ReduceLogSumExp": _least,
}


def _reduce(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x = inputs[0]
    if not isinstance(x, Rows):
        return walk.copy(node, [walk.static(value) for value in inputs])
    x = walk.spaces.plain(x)
    axes = _axes(node, inputs, len(x.shape))
    if node.attrs.get("noop_with_empty_axes") and not axes:
        return [x]
    axes = axes or list(range(len(x.shape)))
    keepdims = bool(node.attrs.get("keepdims", 1))
    rest = [walk.static(value) for value in inputs[1:]]
    if x.axis not in axes:
        (made,) = walk.copy(node, [x.tensor, *rest])
        axis = x.axis if keepdims else x.axis - sum(axis < x.axis for axis in axes)
        return [Rows(made, axis, x.space)]
    hidden = walk.spaces.hide(x, _NEUTRAL[node.op](x.dtype))
    (made,) = walk.copy(node, [hidden, *rest])
    if node.op == "ReduceMean" and not x.space.full:
        # The mean over all rows is the sum over the real ones, divided by a wrong number: put the number right.
        # ONNX Runtime's mean of nothing is 0, so is this.
        count = walk.emit("Max", walk.emit.cast(walk.spaces.count(x.space), x.dtype), np.array(1, x.dtype))
        made = walk.emit("Mul", made, walk.emit("Div", np.array(x.space.size, x.dtype), count))
    return [made]


def _axes(node: gs.Node, inputs: Sequence[Value | None], rank: int) -> list[int]:
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = as_sizes(inputs[1])
        if sizes is None or sizes.known is None:
            raise NotStaticError(node, f"{called(node)} has axes that are computed at run time")
        axes = sizes.known.reshape(-1).tolist()
    else:
        axes = node.attrs.get("axes", ())
    return [int(axis) % rank for axis in axes]


def _arg(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x = inputs[0]
    if not isinstance(x, Rows):
        return walk.copy(node, [walk.static(value) for value in inputs])
    axis = int(node.attrs.get("axis", 0)) % len(x.shape)
    keepdims = bool(node.attrs.get("keepdims", 1))
    x = walk.spaces.plain(x)
    if axis != x.axis:
        (made,) = walk.copy(node, [x.tensor])
        return [Rows(made, x.axis - (not keepdims and axis < x.axis), x.space)]
    x = walk.spaces.settle(x)
    filler = lowest(x.dtype) if node.op == "ArgMax" else highest(x.dtype)
    hidden = walk.spaces.hide(x, filler)
    if len(x.shape) > 1:
        (made,) = walk.copy(node, [hidden])
    else:
        # TensorRT wants two dimensions.
        pair = walk.emit.reshape(hidden, (1, -1))
        found = walk.emit(node.op, pair, **{**node.attrs, "axis": 1, "keepdims": 0})
        made = walk.emit.reshape(found, (1,) if keepdims else ())
    return [walk.spaces.plain(Rows(made, 0, x.space, Index((x.space,)))).tensor]


def _cum_sum(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x, axis = inputs
    known = None if axis is None or isinstance(axis, Rows) else as_sizes(axis)
    if not isinstance(x, Rows) or isinstance(axis, Rows):
        raise NotStaticError(node, f"{called(node)} has an axis that is computed at run time")
    if known is None or known.known is None:
        raise NotStaticError(node, f"{called(node)} has an axis that is computed at run time")
    x = walk.spaces.plain(x)
    if int(known.known.reshape(())) % len(x.shape) == x.axis:
        x = walk.spaces.settle(x)
        x = Rows(walk.spaces.hide(x, np.array(0, x.dtype)), x.axis, x.space)
    (made,) = walk.copy(node, [x.tensor, walk.static(axis)])
    return [Rows(made, x.axis, x.space)]


def _unless_sizes(rule: Rule) -> Rule:
    def whole(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
        if isinstance(inputs[0], Sizes):
            inputs = [walk.static(inputs[0]), *inputs[1:]]
        return rule(walk, node, inputs)

    return whole


RULES: dict[str, Rule] = {
    **{op: _unless_sizes(_reduce) for op in _NEUTRAL},
    "ArgMax": _arg,
    "ArgMin": _arg,
    "CumSum": _cum_sum,
}
