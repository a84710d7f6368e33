"""Operators that only arrange elements: the rows stay together along one axis."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import static_shape
from components.surgery.static_rows.sizes import Size, Sizes, as_sizes, size_of, sizes_of
from components.surgery.static_rows.spaces import Spaces
from components.surgery.static_rows.values import Index, NotStaticError, OpenShapeError, Rows, Space, full_space, same
from components.surgery.static_rows.walk import Rule, Value, Walk, called, shape_of


def _transpose(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    (x,) = inputs
    assert isinstance(x, Rows)
    perm = list(node.attrs.get("perm") or range(len(x.shape))[::-1])
    (made,) = walk.copy(node, [x.tensor])
    index = x.index
    if index is not None and index.axis is not None:
        index = Index(index.components, perm.index(index.axis), index.grid)
    return [Rows(made, perm.index(x.axis), x.space, index)]


def _unsqueeze(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x, axes = inputs[0], _axes(node, inputs)
    assert isinstance(x, Rows)
    rank = len(x.shape) + len(axes)
    added = {axis % rank for axis in axes}
    old = [axis for axis in range(rank) if axis not in added]
    made = walk.copy(node, [x.tensor, *(walk.static(value) for value in inputs[1:])])
    return [_moved(x, made[0], dict(enumerate(old)))]


def _squeeze(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x = inputs[0]
    assert isinstance(x, Rows)
    axes = [axis % len(x.shape) for axis in _axes(node, inputs)]
    if not axes:
        raise NotStaticError(node, f"{called(node)} names no axes, so that the number of rows decides on its rank")
    if x.axis in axes:
        raise NotStaticError(node, f"{called(node)} removes the axis of rows whose number depends on the data")
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    made = walk.copy(node, [x.tensor, *(walk.static(value) for value in inputs[1:])])
    return [_moved(x, made[0], {before: after for after, before in enumerate(kept)})]


def _moved(x: Rows, made: gs.Tensor, places: dict[int, int]) -> Rows:
    """`x` with its axes elsewhere; a removed axis of columns leaves one column."""
    index = x.index
    if index is not None and index.axis is not None:
        index = Index(index.components, places.get(index.axis), index.grid)
    return Rows(made, places[x.axis], x.space, index)


def _axes(node: gs.Node, inputs: Sequence[Value | None]) -> list[int]:
    if len(inputs) > 1 and inputs[1] is not None:
        known = as_sizes(inputs[1])
        if known is None or known.known is None:
            raise NotStaticError(node, f"{called(node)} has axes that are computed at run time")
        return [int(axis) for axis in known.known.reshape(-1)]
    return [int(axis) for axis in node.attrs.get("axes", ())]


def _flatten(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    (x,) = inputs
    assert isinstance(x, Rows)
    axis = int(node.attrs.get("axis", 1)) % (len(x.shape) + 1)
    sizes = [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])]
    target: list[int | Size] = list(sizes)
    rows = x.axis >= axis
    target[rows] = -1
    return [_arranged(walk, node, x, target)]


def _reshape(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x, shape = inputs[:2]
    assert x is not None
    target = _entries(node, shape)
    if not isinstance(x, Rows):
        if any(isinstance(entry, Size) for entry in target):
            raise NotStaticError(node, f"{called(node)} gives a tensor of fixed size a shape that depends on the data")
        return walk.copy(node, [walk.static(x), np.array(target, np.int64)])
    if not node.attrs.get("allowzero", 0):
        target = [
            (size_of(x.space) if position == x.axis else x.shape[position]) if _is(entry, 0) else entry
            for position, entry in enumerate(target)
        ]
    return [_arranged(walk, node, x, target)]


def _arranged(walk: Walk, node: gs.Node, x: Rows, target: list[int | Size]) -> Rows:
    """`x` in the shape `target`, in which one entry stands for the rows."""
    before, after = math.prod(x.shape[: x.axis]), math.prod(x.shape[x.axis + 1 :])
    free = [position for position, entry in enumerate(target) if _is(entry, -1)]
    sized = [position for position, entry in enumerate(target) if isinstance(entry, Size)]
    if len(sized) > 1 or not (sized or free):
        raise NotStaticError(node, f"{called(node)} has a target shape that does not say where the rows go")
    place = (sized or free)[0]
    sizes = [_largest(entry) for entry in target]
    if free:
        sizes[free[0]] = math.prod(x.shape) // max(-math.prod(sizes), 1)
    space = _space_of(walk, x, sizes[place], before, math.prod(sizes[:place]), after, math.prod(sizes[place + 1 :]))
    if space is not None and sized and not _counts(walk, target[place], space):
        space = None
    if space is not None and space is not x.space and x.space.key is not None:
        return _arranged(walk, node, walk.spaces.pack(x), target)
    if space is None:
        raise NotStaticError(node, f"{called(node)} mixes rows whose number depends on the data with another axis")
    made = walk.emit.reshape(x.tensor, sizes)
    return Rows(made, place, space, _index_after(x, space, sizes, place))


def _space_of(walk: Walk, x: Rows, size: int, before: int, new_before: int, after: int, new_after: int) -> Space | None:
    """The space of an axis of `size` elements that the rows of `x` and elements next to them make."""
    if before == new_before and size == x.space.size and after == new_after:
        return x.space
    if before == new_before and size % x.space.size == 0 and after == size // x.space.size * new_after:
        return walk.spaces.repeated(x.space, size // x.space.size)
    origin = walk.spaces.origin(x.space)
    if origin is not None and before == new_before and size == origin[0].size and origin[1] * after == new_after:
        return origin[0]
    if new_before == 1 and before > 1 and size == before * x.space.size and after == new_after:
        return walk.spaces.joined((x.space,) * before)
    return None


def _counts(walk: Walk, entry: int | Size, space: Space) -> bool:
    """Whether a size is the number of rows of a space."""
    if isinstance(entry, Size) and entry.sum_of:
        parts = walk.spaces.parts(space)
        return len(parts) == len(entry.sum_of) and all(map(same, entry.sum_of, parts))
    if not isinstance(entry, Size) or entry.space is None or entry.at_most is not None:
        return False
    if entry.times == 1 or entry.space.key is not None:
        return entry.times == 1 and entry.space is space
    return walk.spaces.repeated(entry.space, entry.times) is space


def _largest(entry: int | Size) -> int:
    return entry if not isinstance(entry, Size) else entry.padded or 0


def _index_after(x: Rows, space: Space, sizes: Sequence[int], place: int) -> Index | None:
    """What the integers count after a reshape, if that can still be said."""
    index = x.index
    if index is None or space is not x.space:
        return None
    if index.axis is None:
        return index
    columns = len(index.components)
    elsewhere = [position for position, size in enumerate(sizes) if position != place and size != 1]
    if len(elsewhere) == 1 and sizes[elsewhere[0]] == columns:
        return Index(index.components, elsewhere[0], index.grid)
    return Index(index.components, None, index.grid) if columns == 1 else None


def _entries(node: gs.Node, value: Value | None) -> list[int | Size]:
    sizes = None if value is None else as_sizes(value)
    if sizes is None or sizes.entries.ndim > 1:
        raise NotStaticError(node, f"{called(node)} has a shape that is computed from data")
    entries = list(sizes.entries.reshape(-1))
    if any(isinstance(entry, Size) and entry.padded is None for entry in entries):
        raise NotStaticError(node, f"{called(node)} has a shape whose largest size is not known")
    return entries


def _is(entry: object, number: int) -> bool:
    return not isinstance(entry, Size) and entry == number


def _expand(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x, target = inputs
    assert x is not None
    entries = _entries(node, target)
    shape = shape_of(x)
    if shape is None:
        raise OpenShapeError(node, f"{called(node)} reads a tensor whose shape is not fixed")
    rank = max(len(shape), len(entries))
    sizes = [1] * (rank - len(entries)) + entries
    found: dict[int, Space] = {}
    if isinstance(x, Rows):
        found[rank - len(shape) + x.axis] = x.space
    for axis, entry in enumerate(sizes):
        if not isinstance(entry, Size):
            continue
        space = None if entry.at_most is not None or entry.space is None else entry.space
        if space is None:
            raise NotStaticError(node, f"{called(node)} expands to a number of rows that has no rows of its own")
        if space.key is not None and entry.times > 1:
            raise NotStaticError(node, f"{called(node)} repeats rows that are not in order")
        space = walk.spaces.repeated(space, entry.times)
        if axis in found and not same(found[axis], space):
            raise NotStaticError(node, f"{called(node)} expands rows to another number of rows")
        found[axis] = space
    if len(found) != 1:
        if not found:
            return [walk.emit("Expand", walk.static(x), np.array(entries, np.int64))]
        raise NotStaticError(node, f"{called(node)} makes two axes whose sizes depend on the data")
    ((axis, space),) = found.items()
    if isinstance(x, Rows) and not _is(sizes[axis], 1) and not isinstance(sizes[axis], Size):
        raise NotStaticError(node, f"{called(node)} expands rows to a fixed number")
    padded = np.array([space.size if position == axis else int(size) for position, size in enumerate(sizes)])  # type: ignore[arg-type]
    tensor = x.tensor if isinstance(x, Rows) else walk.static(x)
    made = walk.emit("Expand", tensor, padded)
    index = x.index if isinstance(x, Rows) else None
    if index is not None and index.axis is not None:
        index = Index(index.components, rank - len(shape) + index.axis, index.grid)
    return [Rows(made, axis, space, index)]


def _tile(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x, repeats = inputs
    assert x is not None
    times = _entries(node, repeats)
    sized = [axis for axis, entry in enumerate(times) if isinstance(entry, Size)]
    if not isinstance(x, Rows):
        shape = shape_of(x)
        # One row, as many times as there are rows, is an Expand.
        if len(sized) == 1 and shape is not None and shape[sized[0]] == 1:
            target = list(times)
            for axis, size in enumerate(shape):
                entry = target[axis]
                target[axis] = entry if isinstance(entry, Size) else entry * size
            return _expand(walk, node, [x, sizes_of(target)])
        raise NotStaticError(node, f"{called(node)} repeats a tensor as often as the data says")
    if sized or times[x.axis] != 1:
        raise NotStaticError(node, f"{called(node)} repeats rows whose number depends on the data")
    (made,) = walk.copy(node, [walk.spaces.plain(x).tensor, walk.static(repeats)])
    return [Rows(made, x.axis, x.space)]


def _split(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x, *rest = inputs
    if not isinstance(x, Rows):
        raise NotStaticError(node, f"{called(node)} splits a tensor of fixed size as the data says")
    axis = int(node.attrs.get("axis", 0)) % len(x.shape)
    if len(node.outputs) == 1:
        return [x]
    if axis == x.axis:
        raise NotStaticError(node, f"{called(node)} splits rows whose number depends on the data")
    made = walk.copy(node, [x.tensor, *(walk.static(value) for value in rest)])
    results, start = [], 0
    for tensor in made:
        size = int(tensor.shape[axis])
        columns = range(start, start + size)
        results.append(Rows(tensor, x.axis, x.space, columns_of(x, axis, columns)))
        start += size
    return results


def columns_of(x: Rows, axis: int, columns: Sequence[int]) -> Index | None:
    """What the integers count after some elements along `axis` (which is not that of the rows) were picked."""
    index = x.index
    if index is None or index.axis != axis:
        return index
    kept = tuple(index.components[column] for column in columns)
    others = [space for position, space in enumerate(index.components) if position not in set(columns)]
    grid = index.grid and all(space.size == 1 for space in others) and list(columns) == sorted(columns)
    return Index(kept, axis, grid)


def _concat(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    if len(inputs) == 1:
        assert inputs[0] is not None
        return [inputs[0]]
    rows = [value for value in inputs if isinstance(value, Rows)]
    if not rows:
        return walk.copy(node, [walk.static(value) for value in inputs])
    axis = int(node.attrs["axis"]) % len(rows[0].shape)
    if any(value.axis != rows[0].axis for value in rows):
        raise NotStaticError(node, f"{called(node)} combines rows along different axes")
    if axis != rows[0].axis:
        if len(rows) < len(inputs) or not all(same(value.space, rows[0].space) for value in rows):
            raise NotStaticError(node, f"{called(node)} combines rows that are chosen in different ways")
        (made,) = walk.copy(node, [walk.spaces.plain(value).tensor for value in rows])
        return [Rows(made, axis=rows[0].axis, space=rows[0].space)]
    parts, spaces, indices = [], [], []
    for value in inputs:
        if isinstance(value, Rows):
            settled = walk.spaces.settle(value)
            parts.append(settled)
            spaces.append(settled.space)
            indices.append(settled.index)
            continue
        tensor = walk.static(value)
        shape = None if tensor is None else static_shape(tensor)
        if tensor is None or shape is None:
            raise OpenShapeError(node, f"{called(node)} also reads a tensor whose shape is not fixed")
        parts.append(Rows(tensor, axis, full_space(shape[axis])))
        spaces.append(parts[-1].space)
        indices.append(None)
    space = walk.spaces.joined(tuple(spaces))
    index = _common_index(indices)
    tensors = [part.tensor if index is not None else walk.spaces.plain(part).tensor for part in parts]
    (made,) = walk.copy(node, tensors)
    return [Rows(made, axis, space, index)]


def _common_index(indices: Sequence[Index | None]) -> Index | None:
    """What all of the parts count, if that is one thing."""
    known = [index for index in indices if index is not None]
    if len(known) < len(indices) or len({(index.components, index.axis) for index in known}) != 1:
        return None
    return Index(known[0].components, known[0].axis)


def _shape(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    del walk
    (x,) = inputs
    assert isinstance(x, Rows)
    sizes: list[int | Size] = list(x.shape)
    sizes[x.axis] = size_of(x.space)
    return [sizes_of(sizes[node.attrs.get("start", 0) : node.attrs.get("end", len(sizes))])]


def _size(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    del walk, node
    (x,) = inputs
    assert isinstance(x, Rows)
    space, others = x.space, math.prod(x.shape) // x.space.size
    made = np.empty((), object)
    made[()] = math.prod(x.shape) if space.full else Size(math.prod(x.shape), _times(others, space), space, others)
    return [Sizes(made, np.dtype(np.int64))]


def _times(others: int, space: Space) -> Callable[[Spaces], gs.Tensor]:
    return lambda spaces: spaces.emit("Mul", spaces.count(space), np.array(others, np.int64))


def _constant_of_shape(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    value = node.attrs.get("value")
    fill = value.values if isinstance(value, gs.Constant) else np.zeros(1, np.float32)
    return _expand(walk, node, [walk.emit.constant(fill.reshape(())), inputs[0]])


def _range(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    start, limit, delta = (None if value is None else as_sizes(value) for value in inputs)
    entry = None if limit is None else limit.entries.reshape(-1)[0]
    plain = start is not None and delta is not None and start.known is not None and delta.known is not None
    if isinstance(entry, Size) and plain and entry.space is not None and entry.at_most is None and entry.times == 1:
        assert start is not None
        assert delta is not None
        if start.known is not None and delta.known is not None and start.known == 0 and delta.known == 1:
            space = entry.space
            numbers = np.arange(space.size, dtype=start.dtype)
            return [Rows(walk.emit.constant(numbers), 0, space, Index((space,), None, grid=True))]
    if isinstance(entry, Size):
        raise NotStaticError(node, f"{called(node)} counts to a number that depends on the data")
    return walk.copy(node, [walk.static(value) for value in inputs])


def _where_there_are_rows(rule: Rule) -> Rule:
    def whole(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
        if isinstance(inputs[0], Rows):
            return rule(walk, node, inputs)
        return walk.copy(node, [walk.static(value) for value in inputs])

    return whole


RULES: dict[str, Rule] = {
    "Transpose": _where_there_are_rows(_transpose),
    "Unsqueeze": _where_there_are_rows(_unsqueeze),
    "Squeeze": _where_there_are_rows(_squeeze),
    "Flatten": _where_there_are_rows(_flatten),
    "Shape": _where_there_are_rows(_shape),
    "Size": _where_there_are_rows(_size),
    "Reshape": _reshape,
    "Expand": _expand,
    "Tile": _tile,
    "Split": _split,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
