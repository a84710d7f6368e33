"""Operators that choose, order or place rows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import static_shape
from components.surgery.static_rows.shaping import columns_of
from components.surgery.static_rows.sizes import Size, Sizes, as_sizes
from components.surgery.static_rows.spaces import highest, lowest
from components.surgery.static_rows.values import Index, NotStaticError, OpenShapeError, Rows, Space, full_space, same
from components.surgery.static_rows.walk import Rule, Value, Walk, called

MAX_MASK = 2**24
"""Elements of a mask up to which every one of them becomes a row."""


def non_zero(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    """Every element is a row; the real ones are those where the mask is true, at their places."""
    mask = inputs[0]
    if isinstance(mask, Sizes):
        mask = walk.static(mask)
    assert mask is not None
    if isinstance(mask, Rows) and mask.space.key is not None and len(mask.shape) > 1:
        mask = walk.spaces.pack(mask)
    shape = mask.shape if isinstance(mask, Rows) else static_shape(mask)
    if shape is None or not shape or math.prod(shape) == 0:
        raise OpenShapeError(node, "the shape of its mask is not fixed")
    count = math.prod(shape)
    if count > MAX_MASK:
        raise NotStaticError(node, f"its mask has {count} elements, more than {MAX_MASK}")
    components = tuple(
        mask.space if isinstance(mask, Rows) and axis == mask.axis else full_space(size)
        for axis, size in enumerate(shape)
    )
    values = walk.emit.constant(np.indices(shape, np.int64).reshape(len(shape), -1))
    space = _chosen(walk, mask, count)
    single = len(shape) == 1
    return [Rows(values, 1, space, Index(components, None if single else 0, grid=True))]


def _chosen(walk: Walk, mask: Rows | gs.Tensor, count: int) -> Space:
    tensor = mask.tensor if isinstance(mask, Rows) else same_mask(mask)
    rows = isinstance(mask, Rows)
    if isinstance(tensor, gs.Constant) and tensor.values.all():
        # All ones, as exporters write a range.
        if not rows:
            return full_space(count)
        if len(mask.shape) == 1:
            return mask.space

    def flat() -> gs.Tensor:
        flags = tensor if tensor.dtype == np.bool_ else walk.emit.cast(tensor, bool)
        if isinstance(mask, Rows) and mask.space.valid is not None and len(mask.shape) > 1:
            flags = walk.emit("And", flags, walk.spaces.valid_along(mask))
        return walk.emit.reshape(flags, (count,))

    flags = walk.spaces.once(("flat mask",), (tensor,), flat)
    if isinstance(mask, Rows) and len(mask.shape) == 1:
        return walk.spaces.chosen(mask.space, flags)
    inside = mask.space.derived() if isinstance(mask, Rows) else frozenset()
    return walk.spaces.once(("elements",), (flags,), lambda: Space(count, flags, inside=inside))


def same_mask(mask: gs.Tensor) -> gs.Tensor:
    """The tensor that a mask is an unchanged copy of: through Identity and an Expand to its own shape."""
    while mask.inputs and mask.inputs[0].op in ("Identity", "Expand"):
        source = mask.inputs[0].inputs[0]
        shape = static_shape(source)
        if mask.inputs[0].op == "Expand" and (shape is None or shape != static_shape(mask)):
            break
        mask = source
    return mask


def _gather(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    data, places = inputs
    if isinstance(data, Sizes):
        data = walk.static(data)
    assert data is not None
    shape = data.shape if isinstance(data, Rows) else static_shape(data)
    if shape is None:
        raise OpenShapeError(node, f"{called(node)} reads a tensor whose shape is not fixed")
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    if isinstance(places, Rows):
        if isinstance(data, Rows) and data.axis != axis:
            raise NotStaticError(node, f"{called(node)} chooses along another axis than that of the rows")
        return [_gather_rows(walk, node, data, shape, axis, places)]
    assert isinstance(data, Rows)
    indices = walk.static(places)
    assert indices is not None
    known = static_shape(indices)
    if known is None:
        raise OpenShapeError(node, f"{called(node)} chooses a number of elements that is not fixed")
    if axis == data.axis:
        target = walk.spaces.places(Rows(indices, 0, full_space(1)), data.space)[0]
        return walk.copy(node, [walk.spaces.plain(data).tensor, target])
    (made,) = walk.copy(node, [data.tensor, indices])
    after = data.axis if data.axis < axis else data.axis + len(known) - 1
    index = _index_after_gather(data, axis, indices, len(known))
    return [Rows(made, after, data.space, index)]


def _index_after_gather(data: Rows, axis: int, indices: gs.Tensor, rank: int) -> Index | None:
    index = data.index
    if index is None or index.axis is None:
        return index
    if index.axis != axis:
        return Index(index.components, index.axis + (rank - 1 if axis < index.axis else 0), index.grid)
    if not isinstance(indices, gs.Constant) or rank > 1:
        return None
    columns = [int(column) % len(index.components) for column in indices.values.reshape(-1)]
    picked = columns_of(data, axis, columns)
    return Index(picked.components, None, picked.grid) if picked is not None and rank == 0 else picked


def _gather_rows(walk: Walk, node: gs.Node, data: Value, shape: tuple[int, ...], axis: int, places: Rows) -> Rows:
    target = data.space if isinstance(data, Rows) else full_space(shape[axis])
    tensor = data.tensor if isinstance(data, Rows) else walk.static(data)
    assert tensor is not None
    found, in_order = walk.spaces.places(_one_column(places), target)
    index = data.index if isinstance(data, Rows) else None
    if index is not None and index.axis is not None:
        moved = index.axis + (len(places.shape) - 1 if index.axis > axis else 0)
        index = Index(index.components, moved, index.grid)
    if in_order and math.prod(places.shape) == target.size:
        made: gs.Tensor = walk.emit.reshape(tensor, (*shape[:axis], *places.shape, *shape[axis + 1 :]))
    else:
        # The numbers of all rows, in order: what is found there is where it was looked for.
        counts = index is not None and index.grid and len(shape) == 1
        made = found if counts else walk.copy(node, [tensor, found])[0]
        index = None if index is None else Index(index.components, index.axis)
    return Rows(made, axis + places.axis, places.space, index)


def _one_column(rows: Rows) -> Rows:
    """`rows`, where its axis of columns has one and so is an axis like others."""
    index = rows.index
    if index is None or index.axis is None or len(index.components) > 1:
        return rows
    return Rows(rows.tensor, rows.axis, rows.space, Index(index.components, None, index.grid))


def _gather_nd(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    data, places = inputs
    if isinstance(data, Sizes):
        data = walk.static(data)
    assert data is not None
    shape = data.shape if isinstance(data, Rows) else static_shape(data)
    columns = places.shape[-1] if isinstance(places, Rows) else 0
    if not isinstance(places, Rows) or shape is None or places.axis == len(places.shape) - 1:
        raise NotStaticError(node, f"{called(node)} chooses in a way that is not known")
    if node.attrs.get("batch_dims", 0) or (isinstance(data, Rows) and data.axis >= columns):
        raise NotStaticError(node, f"{called(node)} chooses along other axes than that of the rows")
    if columns == 1:
        single = _one_column(places)
        flat = walk.emit.reshape(places.tensor, places.shape[:-1])
        along = gs.Node("Gather", name=node.name, attrs={"axis": 0}, outputs=[gs.Variable("chosen")])
        rows = Rows(flat, places.axis, places.space, single.index)
        return [_gather_rows(walk, along, data, shape, 0, rows)]
    tensor = data.tensor if isinstance(data, Rows) else walk.static(data)
    assert tensor is not None
    spaces = _column_spaces(data, shape, columns)
    if _is_grid(places, spaces, len(places.shape) - 1) and len(places.shape) == 2:
        made: gs.Tensor = walk.emit.reshape(tensor, (-1, *shape[columns:]))
    else:
        (made,) = walk.copy(node, [tensor, _columns(walk, places, spaces)])
    return [Rows(made, places.axis, places.space)]


def _column_spaces(data: Value, shape: tuple[int, ...], columns: int) -> list[Space]:
    return [
        data.space if isinstance(data, Rows) and axis == data.axis else full_space(shape[axis])
        for axis in range(columns)
    ]


def _is_grid(places: Rows, spaces: Sequence[Space], axis: int) -> bool:
    index = places.index
    return (
        index is not None
        and index.grid
        and index.axis in (axis, None)
        and len(index.components) == len(spaces)
        and all(same(a, b) for a, b in zip(index.components, spaces, strict=True))
    )


def _columns(walk: Walk, places: Rows, spaces: Sequence[Space]) -> gs.Tensor:
    """Indices [..., columns] as places in the spaces of the columns."""
    axis = len(places.shape) - 1
    parts = []
    for position in range(len(spaces)):
        column = walk.emit.column(places.tensor, position, axis)
        index = columns_of(places, axis, [position])
        if index is not None and index.axis is not None:
            index = Index(index.components, None)
        parts.append(walk.spaces.places(Rows(column, places.axis, places.space, index), spaces[position])[0])
    return parts[0] if len(parts) == 1 else walk.emit("Concat", *parts, axis=axis)


def _gather_elements(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    data, places = inputs
    if isinstance(data, Sizes):
        data = walk.static(data)
    assert data is not None
    shape = data.shape if isinstance(data, Rows) else static_shape(data)
    if shape is None:
        raise OpenShapeError(node, f"{called(node)} reads a tensor whose shape is not fixed")
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    if not isinstance(places, Rows):
        raise NotStaticError(node, f"{called(node)} chooses a fixed number of elements")
    tensor = data.tensor if isinstance(data, Rows) else walk.static(data)
    if axis == places.axis and (not isinstance(data, Rows) or data.axis == axis):
        target = data.space if isinstance(data, Rows) else full_space(shape[axis])
        found, _ = walk.spaces.places(_one_column(places), target)
    elif isinstance(data, Rows) and data.axis == places.axis and same(data.space, places.space):
        found, _ = walk.spaces.places(_one_column(places), full_space(shape[axis]))
    else:
        raise NotStaticError(node, f"{called(node)} chooses along another axis than that of the rows")
    (made,) = walk.copy(node, [tensor, found])
    return [Rows(made, places.axis, places.space)]


def _slice(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x = inputs[0]
    if isinstance(x, Sizes):
        x = walk.static(x)
    assert x is not None
    shape = x.shape if isinstance(x, Rows) else static_shape(x)
    bounds = _bounds(node, inputs)
    if shape is None or bounds is None:
        raise NotStaticError(node, f"{called(node)} has bounds that are computed from data")
    rows_bounds = None
    others: list[tuple[int, int, int, int]] = []
    for start, end, axis, step in bounds:
        position = int(axis) % len(shape)
        if isinstance(x, Rows) and position == x.axis:
            rows_bounds = (start, end, step)
        elif isinstance(start, Size) or isinstance(end, Size):
            raise NotStaticError(node, f"{called(node)} cuts an axis of fixed size where the data says")
        else:
            others.append((int(start), int(end), position, int(step)))
    tensor = x.tensor if isinstance(x, Rows) else walk.static(x)
    index = x.index if isinstance(x, Rows) else None
    for start, end, axis, step in others:
        kept = range(shape[axis])[slice(*_python_bounds(start, end, step, shape[axis]))]
        if isinstance(x, Rows):
            index = columns_of(Rows(x.tensor, x.axis, x.space, index), axis, kept)
    if others:
        columns = [np.array(values, np.int64) for values in zip(*others, strict=True)]
        tensor = walk.emit("Slice", tensor, columns[0], columns[1], columns[2], columns[3])
    assert tensor is not None
    if not isinstance(x, Rows):
        return [tensor]
    rows = Rows(tensor, x.axis, x.space, index)
    return [rows if rows_bounds is None else _cut(walk, node, rows, *rows_bounds)]


def _python_bounds(start: int, end: int, step: int, size: int) -> tuple[int | None, int | None, int]:
    """The bounds of ONNX's Slice as those of Python's: an end before the first element is None."""
    if step < 0 and end < -size:
        return start, None, step
    return start, end, step


def _bounds(node: gs.Node, inputs: Sequence[Value | None]) -> list[tuple[Any, Any, Any, Any]] | None:
    if len(inputs) == 1:
        starts, ends = node.attrs["starts"], node.attrs["ends"]
        axes = node.attrs.get("axes", range(len(starts)))
        return [(start, end, axis, 1) for start, end, axis in zip(starts, ends, axes, strict=True)]
    found = [None if value is None else as_sizes(value) for value in inputs[1:]]
    if found[0] is None or found[1] is None:
        return None
    for given, known in zip(inputs[3:], found[2:], strict=True):
        if given is not None and (known is None or known.known is None):
            return None
    count = found[0].entries.size
    axes_, steps = (
        found[position].entries.reshape(-1) if len(found) > position and found[position] is not None else default  # type: ignore[union-attr]
        for position, default in ((2, np.arange(count)), (3, np.ones(count, int)))
    )
    return list(zip(found[0].entries.reshape(-1), found[1].entries.reshape(-1), axes_, steps, strict=True))


def _part_before(walk: Walk, space: Space, bound: int | Size) -> int | None:
    """How many of the spaces that `space` joins end at a bound; None where that cannot be told."""
    parts = walk.spaces.parts(space)
    if not parts:
        return None
    if not isinstance(bound, Size):
        return 0 if bound == 0 else len(parts) if bound >= space.size else None
    counted = bound.spaces
    return len(counted) if counted and all(map(same, counted, parts)) and len(counted) <= len(parts) else None


def _cut_parts(walk: Walk, rows: Rows, first: int, last: int) -> Rows:
    """The rows of some of the spaces that were joined, such as those of one image of a batch."""
    parts = walk.spaces.parts(rows.space)
    if last - first == len(parts):
        return rows
    rows = walk.spaces.plain(rows)
    ends = [sum(part.size for part in parts[:count]) for count in (first, last)]
    tensor = walk.emit("Slice", rows.tensor, *(np.array([number]) for number in (*ends, rows.axis)))
    kept = parts[first:last]
    return Rows(tensor, rows.axis, kept[0] if len(kept) == 1 else walk.spaces.joined(kept))


def _cut(walk: Walk, node: gs.Node, rows: Rows, start: int | Size, end: int | Size, step: int) -> Rows:
    """The real rows number `start` to `end`."""
    space = rows.space
    first, last = (_part_before(walk, space, bound) for bound in (start, end))
    if step == 1 and first is not None and last is not None and first < last:
        return _cut_parts(walk, rows, first, last)
    if step != 1 or isinstance(start, Size) or start < 0:
        raise NotStaticError(node, f"{called(node)} cuts rows from behind or with a step")
    if isinstance(end, Size):
        if end.space is space and end.at_most is None and start == 0:
            return rows
        if end.space is space and end.times == 1 and end.at_most is not None:
            end = end.at_most
    if not isinstance(end, Size) and end >= 0:
        if start == 0 and end >= space.size:
            return rows
        if start >= min(end, space.size):
            raise NotStaticError(node, f"{called(node)} leaves no rows")
        fewer, places = walk.spaces.first(space, start, end)
        return walk.spaces.take(rows, places, fewer)
    number = walk.spaces.number(space)

    def inside() -> gs.Tensor:
        if isinstance(end, Size):
            last = end.real(walk.spaces)
        else:
            last = walk.emit("Add", walk.spaces.count(space), np.array(end, np.int64))
        before = walk.emit("Less", number, last)
        return before if start == 0 else walk.emit("And", before, walk.emit("Less", np.array(start - 1), number))

    mask = inside() if isinstance(end, Size) else walk.spaces.once(("inside", start, end), (space,), inside)
    return Rows(rows.tensor, rows.axis, walk.spaces.chosen(space, mask), rows.index)


def _top_k(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x, k = inputs[:2]
    sizes = None if k is None else as_sizes(k)
    if sizes is None or x is None or isinstance(x, Sizes):
        raise NotStaticError(node, f"{called(node)} has a K that is computed from data")
    wanted = sizes.entries.reshape(-1)[0]
    if isinstance(wanted, Size) and wanted.padded is None:
        raise NotStaticError(node, f"{called(node)} has a K whose largest value is not known")
    shape = x.shape if isinstance(x, Rows) else static_shape(x)
    if shape is None:
        raise OpenShapeError(node, f"{called(node)} reads a tensor whose shape is not fixed")
    axis = int(node.attrs.get("axis", -1)) % len(shape)
    if isinstance(x, Rows) and x.axis != axis:
        if isinstance(wanted, Size):
            raise NotStaticError(node, f"{called(node)} has a K that depends on the data")
        made = walk.copy(node, [walk.spaces.plain(x).tensor, np.array([wanted], np.int64)])
        return [Rows(tensor, x.axis, x.space) for tensor in made]
    if not isinstance(x, Rows):
        tensor = walk.static(x)
        assert tensor is not None
        x = Rows(tensor, axis, full_space(shape[axis]))
    x = walk.spaces.settle(walk.spaces.plain(x))
    space = x.space
    most = wanted.padded if isinstance(wanted, Size) else int(wanted)
    assert most is not None
    size = min(most, space.size)
    filler = lowest(x.dtype) if node.attrs.get("largest", 1) else highest(x.dtype)
    attributes = {**node.attrs, "axis": axis}
    best, places = walk.emit.node(
        "TopK", [walk.spaces.hide(x, filler), np.array([size], np.int64)], attributes, outputs=2
    )
    result = _best_space(walk, space, wanted, size)
    return [Rows(best, axis, result), Rows(places, axis, result, Index((space,)))]


def _best_space(walk: Walk, space: Space, wanted: int | Size, size: int) -> Space:
    if space.full and not isinstance(wanted, Size):
        return full_space(size)
    count = walk.spaces.count(space)
    if isinstance(wanted, Size) and not (wanted.space is space and wanted.times == 1):
        count = walk.emit("Min", count, wanted.real(walk.spaces))
    return Space(size, walk.spaces.first_are_valid(size, count), prefix=True, inside=space.derived())


def _scatter_elements(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    data, places, updates = inputs
    tensor, space_of_data = _scattered_into(walk, node, data)
    shape = tuple(tensor.shape)
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    if not isinstance(places, Rows):
        raise NotStaticError(node, f"{called(node)} places rows whose number depends on the data at fixed places")
    if places.axis != axis or (isinstance(data, Rows) and data.axis != axis):
        raise NotStaticError(node, f"{called(node)} places rows along another axis than their own")
    target = space_of_data or full_space(shape[axis])
    found, in_order = walk.spaces.places(_one_column(places), target)
    values = _updates(walk, node, updates, places)
    valid = walk.spaces.valid_along(places)
    if in_order and places.shape == shape:
        made: gs.Tensor = walk.emit.choose(valid, values, tensor)
    else:
        # Padding goes to one more row behind the end, which is cut off.
        size = shape[axis]
        found = walk.emit(
            "Where", walk.emit("Less", found, np.array(0)), walk.emit("Add", found, np.array(size)), found
        )
        found = walk.emit("Where", valid, found, np.array(size))
        spare = np.zeros([1 if position == axis else width for position, width in enumerate(shape)], tensor.dtype)
        longer = walk.emit("Concat", tensor, spare, axis=axis)
        written = walk.emit("ScatterElements", longer, found, values, axis=axis)
        made = walk.emit("Slice", written, np.array([0]), np.array([size]), np.array([axis]))
    return [made if not isinstance(data, Rows) else Rows(made, axis, data.space)]


def _scatter_nd(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    data, places, updates = inputs
    tensor, _ = _scattered_into(walk, node, data)
    shape = tuple(tensor.shape)
    if not isinstance(places, Rows) or places.axis != 0 or len(places.shape) != 2:
        raise NotStaticError(node, f"{called(node)} places rows in a way that is not known")
    columns = places.shape[1]
    if isinstance(data, Rows) and data.axis >= columns:
        raise NotStaticError(node, f"{called(node)} places rows along other axes than that of the data's rows")
    assert data is not None
    spaces = _column_spaces(data, shape, columns)
    values = _updates(walk, node, updates, places)
    valid = walk.spaces.valid(places.space)
    flat = (math.prod(shape[:columns]), *shape[columns:])
    if _is_grid(places, spaces, 1):
        whole = walk.emit.reshape(values, shape)
        mask = walk.emit.reshape(valid, [*shape[:columns], *(1 for _ in shape[columns:])])
        made: gs.Tensor = walk.emit.choose(mask, whole, tensor)
    else:
        steps = np.array([math.prod(shape[position + 1 : columns]) for position in range(columns)])
        at = _columns(walk, places, spaces)
        sizes = np.array(shape[:columns])
        at = walk.emit("Where", walk.emit("Less", at, np.array(0)), walk.emit("Add", at, sizes), at)
        place = walk.emit.reduce("ReduceSum", walk.emit("Mul", at, steps), [1], keepdims=False)
        place = walk.emit("Where", valid, place, np.array(flat[0]))
        longer = walk.emit("Concat", walk.emit.reshape(tensor, flat), np.zeros((1, *flat[1:]), tensor.dtype), axis=0)
        written = walk.emit("ScatterND", longer, walk.emit.reshape(place, (-1, 1)), values)
        made = walk.emit.reshape(walk.emit("Slice", written, np.array([0]), np.array([flat[0]]), np.array([0])), shape)
    return [made if not isinstance(data, Rows) else Rows(made, data.axis, data.space)]


def _scattered_into(walk: Walk, node: gs.Node, data: Value | None) -> tuple[gs.Tensor, Space | None]:
    if node.attrs.get("reduction", "none") not in ("none", b"none"):
        raise NotStaticError(node, f"{called(node)} combines the rows with what is there")
    if isinstance(data, Rows):
        rows = walk.spaces.plain(data)
        return rows.tensor, rows.space
    tensor = walk.static(data)
    if tensor is None or static_shape(tensor) is None:
        raise OpenShapeError(node, f"{called(node)} writes into a tensor whose shape is not fixed")
    return tensor, None


def _updates(walk: Walk, node: gs.Node, updates: Value | None, places: Rows) -> gs.Tensor:
    if not isinstance(updates, Rows) or updates.axis != places.axis or not same(updates.space, places.space):
        raise NotStaticError(node, f"{called(node)} writes values that do not belong to its places")
    return walk.spaces.plain(updates).tensor


def _where_there_are_rows(rule: Rule) -> Rule:
    def whole(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
        if any(isinstance(value, Rows) for value in inputs):
            return rule(walk, node, inputs)
        return walk.copy(node, [walk.static(value) for value in inputs])

    return whole


RULES: dict[str, Rule] = {
    "NonZero": non_zero,
    "Gather": _where_there_are_rows(_gather),
    "GatherND": _where_there_are_rows(_gather_nd),
    "GatherElements": _where_there_are_rows(_gather_elements),
    "Slice": _slice,
    "TopK": _top_k,
    "ScatterElements": _where_there_are_rows(_scatter_elements),
    "Scatter": _where_there_are_rows(_scatter_elements),
    "ScatterND": _where_there_are_rows(_scatter_nd),
}
