"""What can be asked of a space: how many real rows, in which order, at which places. Each is written at most once."""

from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import static_shape
from components.surgery.static_rows.values import Index, Rows, Space, full_space, same
from components.surgery.static_rows.writer import Writer
from components.surgery.surgeries.greedy_nms import emit_compact

_T = TypeVar("_T")


def lowest(dtype: np.dtype) -> np.ndarray:
    """What sorts behind everything; finite, since minus infinity times 0 would be no number."""
    return np.array(np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min, dtype)


def highest(dtype: np.dtype) -> np.ndarray:
    """What sorts before everything."""
    return np.array(np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max, dtype)


class Spaces:
    """The spaces of one walk over a graph."""

    def __init__(self, emit: Writer) -> None:
        self.emit = emit
        self._memo: dict[Hashable, object] = {}
        self._kept: list[object] = []

    def once(self, key: tuple[Hashable, ...], owners: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """Makes something once for a key and the identity of its owners, which stay alive as long as this does."""
        whole = (*key, *(id(owner) for owner in owners))
        if whole not in self._memo:
            self._kept.extend(owners)
            self._memo[whole] = make()
        return self._memo[whole]  # type: ignore[return-value]

    def hide(self, rows: Rows, filler: np.ndarray) -> gs.Tensor:
        """The tensor with `filler` in the rows that are not real."""
        if rows.space.valid is None:
            return rows.tensor
        return self.emit.choose(self.valid_along(rows), rows.tensor, self.emit.constant(filler))

    def valid_along(self, rows: Rows) -> gs.Tensor:
        """Which rows are real, in a shape that broadcasts against the tensor."""
        return self.emit.reshape(self.valid(rows.space), rows.along())

    def valid(self, space: Space) -> gs.Tensor:
        """Bool [size], also of a full space."""
        return self.emit.constant(np.ones(space.size, bool)) if space.valid is None else space.valid

    def count(self, space: Space) -> gs.Tensor:
        """How many rows are real: int64 []."""
        if space.valid is None:
            return self.emit.constant(np.array(space.size))

        def make() -> gs.Tensor:
            return self.emit.reduce("ReduceSum", self.emit.cast(space.valid, np.int64), [0], keepdims=False)

        return self.once(("count",), (space,), make)

    def first_are_valid(self, size: int, count: gs.Tensor) -> gs.Tensor:
        """Bool [size], of which the first `count` are true."""
        return self.emit("Less", np.arange(size), count)

    def order(self, space: Space) -> gs.Tensor:
        """The places of the real rows, in order, then of others: int64 [size]."""
        if space.prefix:
            return self.emit.constant(np.arange(space.size))
        return self.once(("order",), (space,), lambda: self._order(space))

    def _order(self, space: Space) -> gs.Tensor:
        if space.key is not None:
            return self.best(space, space.size)
        flags = self.emit.cast(self.valid(space), np.int64)
        compact, _ = emit_compact(self.emit, flags, self.emit.constant(np.arange(space.size)), space.size)
        return self._slice(compact, 0, space.size)

    def best(self, space: Space, count: int) -> gs.Tensor:
        """The places of the rows with the highest keys: int64 [count]."""
        assert space.key is not None
        key = self.hide(Rows(space.key, 0, space), lowest(np.dtype(space.key.dtype)))
        return self.emit.node("TopK", [key, np.array([count])], {"axis": 0}, outputs=2)[1]

    def number(self, space: Space) -> gs.Tensor:
        """Which real row it is that lies at each place: int64 [size]; something for the others."""
        if space.prefix:
            return self.emit.constant(np.arange(space.size))
        return self.once(("number",), (space,), lambda: self._number(space))

    def _number(self, space: Space) -> gs.Tensor:
        if space.key is not None:
            places = self.emit.constant(np.arange(space.size))
            return self.emit("ScatterElements", np.zeros(space.size, np.int64), self.order(space), places, axis=0)
        running = self.emit("CumSum", self.emit.cast(self.valid(space), np.int64), np.array(0, np.int64))
        return self.emit("Max", self.emit("Sub", running, np.array(1)), np.array(0))

    def take(self, rows: Rows, places: gs.Tensor, space: Space) -> Rows:
        """The rows at places [space.size], as rows of `space`."""
        index = None if rows.index is None else Index(rows.index.components, rows.index.axis)
        alone = len(rows.shape) == 1 or all(
            size == 1 for position, size in enumerate(rows.shape) if position != rows.axis
        )
        if rows.index is not None and rows.index.grid and alone and len(rows.index.components) == 1:
            shape = [space.size if position == rows.axis else 1 for position in range(len(rows.shape))]
            return Rows(self.emit.reshape(places, shape), rows.axis, space, index)
        return Rows(self.emit("Gather", rows.tensor, places, axis=rows.axis), rows.axis, space, index)

    def settle(self, rows: Rows) -> Rows:
        """The same rows in a space where the order of the places is the order of the rows."""
        return rows if rows.space.key is None else self.pack(rows)

    def pack(self, rows: Rows) -> Rows:
        """The same rows, with the real ones first."""
        space = rows.space
        if space.prefix:
            return rows
        packed, places = self.first(space, 0, space.size if space.most is None else space.most)
        return self.take(rows, places, packed)

    def chosen(self, space: Space, mask: gs.Tensor) -> Space:
        """The rows of `space` where a bool mask [size] is true, at their places."""

        def make() -> Space:
            valid = mask if space.valid is None else self.emit("And", mask, space.valid)
            return Space(space.size, valid, key=space.key, most=space.most, inside=space.derived())

        return self.once(("chosen",), (space, mask), make)

    def first(self, space: Space, start: int, end: int) -> tuple[Space, gs.Tensor]:
        """The real rows number `start` to `end` (not included), packed.

        Returns:
            Their space, and their places in the old one.
        """
        return self.once(("first", start, end), (space,), lambda: self._first(space, start, end))

    def _first(self, space: Space, start: int, end: int) -> tuple[Space, gs.Tensor]:
        end = min(end, space.size)
        places = self.best(space, end) if space.key is not None else self._slice(self.order(space), 0, end)
        if start:
            places = self._slice(places, start, end)
        valid = self.emit("Less", np.arange(start, end), self.count(space))
        return Space(end - start, valid, prefix=True, inside=space.derived()), places

    def repeated(self, space: Space, times: int) -> Space:
        """Every row `times` times, one after the other."""
        if times == 1:
            return space

        def make() -> Space:
            if space.valid is None:
                return full_space(space.size * times)
            column = self.emit.reshape(space.valid, (space.size, 1))
            valid = self.emit.reshape(self.emit("Expand", column, np.array([space.size, times])), (-1,))
            result = Space(space.size * times, valid, prefix=space.prefix, inside=space.derived())
            self._memo["origin", id(result)] = (space, times)
            return result

        assert space.key is None
        return self.once(("repeated", times), (space,), make)

    def origin(self, space: Space) -> tuple[Space, int] | None:
        """The space that this one repeats, and how often."""
        return self._memo.get(("origin", id(space)))  # type: ignore[return-value]

    def joined(self, spaces: tuple[Space, ...]) -> Space:
        """The rows of several spaces, one space after the other."""

        def make() -> Space:
            if all(space.full for space in spaces):
                return full_space(sum(space.size for space in spaces))
            valid = self.emit("Concat", *(self.valid(space) for space in spaces), axis=0)
            inside = frozenset.intersection(*(space.derived() for space in spaces))
            result = Space(sum(space.size for space in spaces), valid, inside=inside)
            self._memo["parts", id(result)] = spaces
            return result

        sizes = tuple(space.size if space.full else 0 for space in spaces)
        return self.once(("joined", sizes), tuple(space for space in spaces if not space.full), make)

    def parts(self, space: Space) -> tuple[Space, ...]:
        """The spaces that this one joins; empty for another one."""
        return self._memo.get(("parts", id(space)), ())  # type: ignore[return-value]

    def plain(self, rows: Rows) -> Rows:
        """The same rows with integers that mean what they say, and not places in a space."""
        index = rows.index
        if index is None:
            return rows
        tensor = rows.tensor
        for position, space in enumerate(index.components):
            if space.prefix:
                continue
            numbers = self.emit("Gather", self.number(space), self._within(tensor, space.size), axis=0)
            if index.axis is None:
                tensor = numbers
                continue
            column = np.arange(len(index.components)) == position
            shape = [-1 if axis == index.axis else 1 for axis in range(len(rows.shape))]
            tensor = self.emit("Where", column.reshape(shape), numbers, tensor)
        return Rows(tensor, rows.axis, rows.space)

    def places(self, rows: Rows, target: Space) -> tuple[gs.Tensor, bool]:
        """Where in `target` a tensor of row numbers points.

        Returns:
            int64 of the same shape, within `target` also in the padded rows; and whether they are all places of
            `target` in order.
        """
        index = rows.index
        if index is not None and len(index.components) == 1 and same(index.components[0], target):
            return rows.tensor, index.grid
        numbers = self._within(self.plain(rows).tensor, target.size)
        if not target.full:
            from_end = self.emit("Add", numbers, self.emit.cast(self.count(target), np.dtype(numbers.dtype)))
            negative = self.emit("Less", numbers, np.array(0, np.dtype(numbers.dtype)))
            numbers = self.emit("Where", negative, from_end, numbers)
        return (numbers if target.prefix else self.emit("Gather", self.order(target), numbers, axis=0)), False

    def _within(self, numbers: gs.Tensor, size: int) -> gs.Tensor:
        dtype = np.dtype(numbers.dtype)
        return self.emit("Min", self.emit("Max", numbers, np.array(-size, dtype)), np.array(size - 1, dtype))

    def _slice(self, x: gs.Tensor, start: int, end: int) -> gs.Tensor:
        shape = static_shape(x)
        if shape is not None and start == 0 and end >= shape[0]:
            return x
        return self.emit("Slice", x, np.array([start]), np.array([end]), np.array([0]))
