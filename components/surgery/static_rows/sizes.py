"""Arithmetic with numbers of rows, as exporters write it around Shape, done here where it only gives a tensor its size.

A `Size` knows how large it can get, which is what buffers are made for, and how to compute it at run time, for where
it is more than a size.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import optional_input
from components.surgery.static_rows.spaces import Spaces
from components.surgery.static_rows.values import Space

_MOST = 64
"""Elements up to which integers are followed one by one."""


@dataclass(frozen=True, eq=False)
class Size:
    """A number that depends on how many rows are real; never negative."""

    padded: int | None
    """Its largest value; None where that does not follow from its parts, as for differences."""
    real: Callable[[Spaces], gs.Tensor]
    """Writes the nodes that compute it: int64 []."""
    space: Space | None = None
    """If given, it is exactly the number of this space's rows."""
    times: int = 1
    """It is the number of rows times this, if `space` is given."""
    at_most: int | None = None
    """It is the smaller one of this and the number of rows, if given."""
    sum_of: tuple[Space, ...] = ()
    """If given, it is the sum of the numbers of these spaces' rows, in order, as of the images of a batch."""

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The spaces whose rows it counts, each row once; empty where it is another number."""
        if self.space is not None and self.times == 1 and self.at_most is None:
            return (self.space,)
        return self.sum_of


@dataclass(frozen=True, eq=False)
class Flag:
    """Whether a space has no rows, or the opposite."""

    space: Space
    when_empty: bool
    real: Callable[[Spaces], gs.Tensor]


@dataclass(frozen=True)
class Sizes:
    """A small tensor of numbers, of which some depend on the number of rows."""

    entries: np.ndarray
    """Of int, float, bool, `Size` or `Flag`."""
    dtype: np.dtype

    @property
    def known(self) -> np.ndarray | None:
        """The values, where none depends on rows."""
        return None if any(map(_depends, self.entries.flat)) else self.entries.astype(self.dtype)


def size_of(space: Space) -> Size | int:
    """The number of rows."""
    return space.size if space.full else Size(space.size, lambda spaces: spaces.count(space), space)


def sizes_of(values: Sequence[Any]) -> Sizes:
    """A tensor of one dimension, such as a shape."""
    entries = np.empty(len(values), object)
    entries[:] = list(values)
    return Sizes(entries, np.dtype(np.int64))


def as_sizes(value: object) -> Sizes | None:
    """Sizes, or a constant as sizes; None for anything else."""
    if isinstance(value, Sizes):
        return value
    if isinstance(value, gs.Constant) and value.values.size <= _MOST and value.values.dtype.kind in "iufb":
        return Sizes(value.values.astype(object), value.values.dtype)
    return None


def materialize(value: Sizes, spaces: Spaces) -> gs.Tensor:
    """The same values as a tensor of the graph."""
    known = value.known
    if known is not None:
        return spaces.emit.constant(known)
    parts = []
    for entry in value.entries.flat:
        tensor = entry.real(spaces) if _depends(entry) else spaces.emit.constant(np.array(entry))
        parts.append(spaces.emit.reshape(spaces.emit.cast(tensor, value.dtype), (1,)))
    joined = parts[0] if len(parts) == 1 else spaces.emit("Concat", *parts, axis=0)
    return spaces.emit.reshape(joined, value.entries.shape)


def follow(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    """What a node makes of sizes; None where it is not arithmetic with sizes."""
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    made = rule(node, inputs)
    if made is None or all(entry is not None for entry in made.entries.flat):
        return made
    return None


def _depends(entry: object) -> bool:
    return isinstance(entry, Size | Flag)


def _binary(function: Callable[[Any, Any], Any], op: str) -> Callable[[gs.Node, Sequence[Sizes]], Sizes | None]:
    def rule(_node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
        known = [value.known for value in inputs]
        if all(value is not None for value in known):
            return None
        entries = np.frompyfunc(lambda a, b: _combine(function, op, a, b), 2, 1)
        made = reduce(lambda a, b: np.asarray(entries(a, b), object), (value.entries for value in inputs))
        return Sizes(np.asarray(made, object), inputs[0].dtype)

    return rule


def _combine(function: Callable[[Any, Any], Any], op: str, a: Any, b: Any) -> Any:
    if not _depends(a) and not _depends(b):
        return function(a, b)
    if isinstance(a, Flag) or isinstance(b, Flag):
        return None
    if op in ("Add", "Mul", "Min", "Max") and not isinstance(a, Size):
        a, b = b, a
    if (op == "Mul" and _is(b, 1)) or (op == "Div" and _is(b, 1)) or (op in ("Add", "Sub") and _is(b, 0)):
        return a
    if op == "Mul" and _is(b, 0):
        return 0

    def real(spaces: Spaces) -> gs.Tensor:
        tensors = [
            value.real(spaces) if isinstance(value, Size) else spaces.emit.constant(np.array(value, np.int64))
            for value in (a, b)
        ]
        return spaces.emit(op, *tensors)

    sides = [value.padded if isinstance(value, Size) else value for value in (a, b)]
    grows = op in ("Add", "Mul", "Min", "Max") or (op == "Div" and not isinstance(b, Size))
    known = [side for side in sides if side is not None]
    padded = int(function(*known)) if grows and len(known) == 2 and min(known) >= 0 else None
    if op == "Add" and isinstance(b, Size) and a.spaces and b.spaces:
        return Size(padded, real, sum_of=(*a.spaces, *b.spaces))
    if op == "Mul" and not isinstance(b, Size) and a.space is not None and a.at_most is None:
        return Size(padded, real, a.space, a.times * b)
    if op == "Min" and not isinstance(b, Size) and a.space is not None and a.times == 1:
        return Size(padded, real, a.space, 1, b if a.at_most is None else min(a.at_most, b))
    return Size(padded, real)


def _clip(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    bounds = [position for position in (1, 2) if optional_input(node, position) is not None]
    made: Sizes | None = inputs[0]
    for position, bound in zip(bounds, inputs[1:], strict=True):
        made = None if made is None else _BOUNDS[position](node, [made, bound])
    return made


def _is(value: Any, number: int) -> bool:
    return not isinstance(value, Size) and value == number


def _compare(op: str) -> Callable[[gs.Node, Sequence[Sizes]], Sizes | None]:
    function = {"Equal": operator.eq, "Greater": operator.gt, "Less": operator.lt}[op.removesuffix("OrEqual")]
    if op.endswith("OrEqual"):
        function = {operator.gt: operator.ge, operator.lt: operator.le}[function]

    def entry(a: Any, b: Any) -> Any:
        if not _depends(a) and not _depends(b):
            return function(a, b)
        turned = not isinstance(a, Size)
        size, other = (b, a) if turned else (a, b)
        if _depends(other) or not isinstance(size, Size) or size.padded is None:
            return None
        if op == "Equal" and other > 0:
            return None
        none, some, most = (
            function(other, number) if turned else function(number, other) for number in (0, size.times, size.padded)
        )
        if none == most:
            return none
        if size.space is None or some != most:
            return None

        def real(spaces: Spaces) -> gs.Tensor:
            tensors = [size.real(spaces), spaces.emit.constant(np.array(other, np.int64))]
            return spaces.emit(op, *(reversed(tensors) if turned else tensors))

        return Flag(size.space, bool(none), real)

    def rule(_node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
        made = np.frompyfunc(entry, 2, 1)(inputs[0].entries, inputs[1].entries)
        return Sizes(np.asarray(made, object), np.dtype(bool))

    return rule


def _not(_node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    def entry(value: Any) -> Any:
        if not isinstance(value, Flag):
            return None if _depends(value) else not value
        return Flag(value.space, not value.when_empty, lambda spaces: spaces.emit("Not", value.real(spaces)))

    return Sizes(np.asarray(np.frompyfunc(entry, 1, 1)(inputs[0].entries), object), np.dtype(bool))


def _where(_node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    mask = inputs[0].known
    if mask is None:
        return None
    return Sizes(np.where(mask, inputs[1].entries, inputs[2].entries), inputs[1].dtype)


def _reduced(op: str) -> Callable[[gs.Node, Sequence[Sizes]], Sizes | None]:
    functions: dict[str, Callable[[Any, Any], Any]] = {"Min": min, "Max": max, "Add": operator.add, "Mul": operator.mul}
    function = functions[op]

    def rule(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
        entries = inputs[0].entries
        if entries.ndim > 1 or entries.size == 0:
            return None
        made = reduce(lambda a, b: None if a is None else _combine(function, op, a, b), entries.flat)
        result = np.empty((1,) * entries.ndim if node.attrs.get("keepdims", 1) else (), object)
        result[...] = made
        return Sizes(result, inputs[0].dtype)

    return rule


def _cast(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    import onnx

    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.attrs["to"]))
    flags = [isinstance(entry, Flag) for entry in inputs[0].entries.flat]
    fits = dtype == np.bool_ if any(flags) else dtype.kind in "iu"
    return Sizes(inputs[0].entries, dtype) if fits and (all(flags) or not any(flags)) else None


def _shaped(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    entries = inputs[0].entries
    axes = inputs[1].known if len(inputs) > 1 else node.attrs.get("axes")
    if len(inputs) > 1 and axes is None:
        return None
    if node.op == "Reshape" and axes is not None:
        return Sizes(entries.reshape([int(size) for size in axes]), inputs[0].dtype)
    if node.op == "Unsqueeze" and axes is not None:
        return Sizes(np.expand_dims(entries, tuple(int(axis) for axis in axes)), inputs[0].dtype)
    return Sizes(np.squeeze(entries, None if axes is None else tuple(int(axis) for axis in axes)), inputs[0].dtype)


def _gather(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    places = inputs[1].known
    if places is None:
        return None
    made = np.take(inputs[0].entries, places, axis=node.attrs.get("axis", 0))
    return Sizes(np.asarray(made, object) if isinstance(made, np.ndarray) else _scalar(made), inputs[0].dtype)


def _scalar(entry: Any) -> np.ndarray:
    result = np.empty((), object)
    result[()] = entry
    return result


def _slice(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    known = [value.known for value in inputs[1:]]
    if any(value is None for value in known) or inputs[0].entries.ndim != 1 or optional_input(node, 2) is None:
        return None
    starts, ends = known[0], known[1]
    steps = known[3] if len(known) > 3 else np.array([1])
    assert starts is not None
    assert ends is not None
    assert steps is not None
    return Sizes(inputs[0].entries[int(starts[0]) : int(ends[0]) : int(steps[0])], inputs[0].dtype)


def _concat(_node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    return Sizes(np.concatenate([value.entries for value in inputs]), inputs[0].dtype)


def _scatter(node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    data, places, updates = inputs
    if places.known is None or data.entries.ndim != 1 or node.attrs.get("reduction", "none") != "none":
        return None
    entries = data.entries.copy()
    entries[places.known.reshape(-1)] = updates.entries.reshape(-1)
    return Sizes(entries, data.dtype)


def _same(_node: gs.Node, inputs: Sequence[Sizes]) -> Sizes | None:
    return inputs[0]


_BOUNDS = {1: _binary(max, "Max"), 2: _binary(min, "Min")}
_RULES: dict[str, Callable[[gs.Node, Sequence[Sizes]], Sizes | None]] = {
    "Add": _binary(operator.add, "Add"),
    "Sub": _binary(operator.sub, "Sub"),
    "Mul": _binary(operator.mul, "Mul"),
    "Div": _binary(operator.floordiv, "Div"),
    "Min": _binary(min, "Min"),
    "Max": _binary(max, "Max"),
    **{op: _compare(op) for op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")},
    "Not": _not,
    "Where": _where,
    "Clip": _clip,
    "ReduceMin": _reduced("Min"),
    "ReduceMax": _reduced("Max"),
    "ReduceSum": _reduced("Add"),
    "ReduceProd": _reduced("Mul"),
    "Cast": _cast,
    "Reshape": _shaped,
    "Unsqueeze": _shaped,
    "Squeeze": _shaped,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Identity": _same,
}
