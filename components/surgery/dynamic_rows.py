"""Tensors whose number of rows depends on the data (of NonMaxSuppression, NonZero), made static.

What follows such a tensor is studied by *running* it, node by node, on all rows that there could be and on subsets of
them, and not by looking for the operators that some exporter writes today:

* a tensor is **row-wise** if its value for a subset of the rows is the subset of its value for all rows;
* if everything row-wise ends in a scatter or in a sum, maximum or minimum over the rows, the dynamic tensor is
  replaced by *all* rows, and what was not selected is masked there (`lift`). Nothing is approximated.
* if it ends in outputs of the graph, it is given a fixed number of rows, the selected ones first (`check_prefixes`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.feeds import random_values
from components.surgery.graphs import constant, has_subgraphs, numpy_dtype, static_shape

_MAX_NODES = 200
_MAX_TABLE = 2**24
_SCATTERS = ("ScatterElements", "ScatterND", "Scatter")
_NEUTRAL: dict[str, Callable[[np.dtype], float]] = {
    "ReduceSum": lambda _: 0,
    "ReduceMean": lambda _: 0,
    "ReduceL1": lambda _: 0,
    "ReduceMax": lambda dtype: float(np.finfo(dtype).min) if dtype.kind == "f" else int(np.iinfo(dtype).min),
    "ReduceMin": lambda dtype: float(np.finfo(dtype).max) if dtype.kind == "f" else int(np.iinfo(dtype).max),
    "ReduceProd": lambda _: 1,
}
"""Reductions that a masked row can be hidden from, and the value that hides it."""


class NotStaticError(Exception):
    """Why the rows cannot be made static."""


@dataclass(frozen=True)
class Probe:
    """One selection of rows and, by tensor name, what the nodes make of it."""

    rows: np.ndarray
    values: dict[str, np.ndarray]


@dataclass
class Study:
    """What follows a tensor with dynamic rows."""

    source: gs.Variable
    probes: list[Probe]
    """The first has all rows, the last may have none."""
    live: dict[str, int | None]
    """Tensors that depend on the rows -> the axis of the rows, or None where there is none (such as a shape)."""
    scatters: list[gs.Node] = field(default_factory=list)
    reductions: list[gs.Node] = field(default_factory=list)
    outputs: list[gs.Tensor] = field(default_factory=list)
    """Graph outputs that depend on the rows."""
    statics: list[gs.Tensor] = field(default_factory=list)
    """Other tensors that are read on the way."""

    @property
    def full(self) -> dict[str, np.ndarray]:
        """Values for all rows."""
        return self.probes[0].values

    @property
    def borders(self) -> tuple[str, ...]:
        """Outputs of the scatters and reductions."""
        return tuple(node.outputs[0].name for node in (*self.scatters, *self.reductions))

    def drop_empty_probe(self) -> bool:
        """Goes on without the probe that has no rows, for nodes that do not run on nothing; whether there was one."""
        if len(self.probes) == 1 or len(self.probes[-1].rows):
            return False
        self.probes.pop()
        return True


@dataclass(frozen=True)
class _Plan:
    """How a scatter becomes a mask."""

    inverse: np.ndarray
    """The row that is written to each place, or the number of rows where none is. [places]"""
    width: int
    """Leading axes of the data that the places count over."""
    table: np.ndarray | None
    """Where several rows may be written to one place: 1 at [place, row]."""


def study(graph: gs.Graph, source: gs.Variable, full: np.ndarray, axis: int, selections: Sequence[np.ndarray]) -> Study:
    """Follows a dynamic tensor to where its rows end.

    Args:
        graph: the graph, sorted.
        source: tensor with dynamic rows.
        full: its value if every row were there.
        axis: of the rows in `full`.
        selections: row indices to try, each as `source` could come out, in order.

    Raises:
        NotStaticError: a node on the way cannot be followed; it is named.
    """
    everything = np.arange(full.shape[axis])
    nothing = everything[:0]
    probes = [Probe(rows, {source.name: full.take(rows, axis)}) for rows in (everything, *selections, nothing)]
    found = Study(source, probes, {source.name: axis})
    rng = np.random.default_rng(0)
    count = 0
    for node in graph.nodes:
        if not any(tensor.name in found.live for tensor in node.inputs):
            _refuse_captures(node, found)
            continue
        count += 1
        if count > _MAX_NODES:
            raise NotStaticError(f"more than {_MAX_NODES} nodes follow {source.name!r}")
        if _is_scatter(node, found):
            found.scatters.append(node)
            _read_statics(node, found, rng)
            continue
        _follow(graph, node, found, rng)
    found.outputs = [tensor for tensor in graph.outputs if tensor.name in found.live]
    return found


def lift(found: Study, all_rows: gs.Tensor, keep: gs.Tensor, emit: Emitter) -> list[str]:
    """Replaces the dynamic tensor by all rows, and masks what was not selected at the end of each path.

    Args:
        found: of `study`.
        all_rows: constant with every row, in the order of the study's first probe.
        keep: bool [number of rows], which rows the dynamic tensor would have had.
        emit: writes the nodes.

    Returns:
        What became of each end, for the report.

    Raises:
        NotStaticError: an end cannot be masked; the graph is unchanged then.
    """
    if found.outputs:
        names = ", ".join(repr(tensor.name) for tensor in found.outputs)
        raise NotStaticError(f"the number of rows of the graph's output {names} depends on the data")
    plans = [_plan_scatter(node, found) for node in found.scatters]
    reduced = [_reduced_value(node, found) for node in found.reductions]
    if not found.scatters and not found.reductions:
        raise NotStaticError(f"nothing reads {found.source.name!r} in a way that is known")
    for node in list(found.source.outputs):
        node.inputs = [all_rows if tensor is found.source else tensor for tensor in node.inputs]
    done = []
    for node, plan in zip(found.scatters, plans, strict=True):
        done.append(f"{node.op} {node.outputs[0].name!r} is a choice by the mask")
        _mask_scatter(node, plan, found, keep, emit)
    for node, (value, axis) in zip(found.reductions, reduced, strict=True):
        done.append(f"{node.op} {node.outputs[0].name!r} skips masked rows")
        _mask_reduction(node, value, axis, keep, emit)
    return done


def check_prefixes(graph: gs.Graph, found: Study, padded: Sequence[np.ndarray]) -> None:
    """Checks that a padded source gives padded outputs: the beginning of each output stays what it was.

    Args:
        graph: the graph, sorted.
        found: of `study`.
        padded: for each selection given to `study`, the same rows with padding.

    Raises:
        NotStaticError: an output mixes the rows, so padding would change it.
    """
    if found.scatters or found.reductions:
        ends = ", ".join(repr(name) for name in found.borders)
        raise NotStaticError(f"its rows end both in the graph's outputs and in {ends}")
    if not found.outputs:
        raise NotStaticError(f"nothing reads {found.source.name!r} in a way that is known")
    axis = found.live[found.source.name]
    source = found.full[found.source.name]
    for probe, rows in zip(found.probes[1:], padded, strict=False):
        values = dict(probe.values)
        values[found.source.name] = source.take(rows, axis)
        for node in graph.nodes:
            if any(tensor.name in found.live for tensor in node.inputs):
                _run(graph, node, values)
        for output in found.outputs:
            short, long = probe.values[output.name], values[output.name]
            beginning = long[tuple(slice(size) for size in short.shape)] if short.ndim == long.ndim else long
            if not _close(beginning, short):
                raise NotStaticError(f"the graph's output {output.name!r} mixes rows, so padding would change it")


def selections(count: int, *, ordered: bool) -> list[np.ndarray]:
    """Subsets of `count` rows to try: about half of them, a few, two.

    Args:
        count: number of rows that there could be.
        ordered: whether the operator gives rows in ascending order.
    """
    rng = np.random.default_rng(0)
    sizes = sorted({max(1, count // 2), min(count, 5), min(count, 2)}, reverse=True)
    picked = [rng.permutation(count)[:size] for size in sizes]
    return [np.sort(rows) for rows in picked] if ordered else picked


def _refuse_captures(node: gs.Node, found: Study) -> None:
    if not has_subgraphs(node):
        return
    for value in node.attrs.values():
        if isinstance(value, gs.Graph) and any(name in found.live for name in value.tensors()):
            raise NotStaticError(f"the {node.op} {_called(node)} reads them")


def _is_scatter(node: gs.Node, found: Study) -> bool:
    return (
        node.op in _SCATTERS
        and node.attrs.get("reduction", "none") == "none"
        and node.inputs[0].name not in found.live
        and node.inputs[1].name in found.live
    )


def _follow(graph: gs.Graph, node: gs.Node, found: Study, rng: np.random.Generator) -> None:
    _read_statics(node, found, rng)
    for probe in list(found.probes):
        try:
            _run(graph, node, probe.values)
        except NotStaticError:
            if len(probe.rows) or not found.drop_empty_probe():
                raise
    for tensor in node.outputs:
        if not tensor.name:
            continue
        values = [probe.values[tensor.name] for probe in found.probes]
        if all(_equal(value, values[0]) for value in values[1:]):
            continue  # such as the size of another dimension: not dependent on the rows
        axis = _row_axis(values, [probe.rows for probe in found.probes])
        same_shape = all(value.shape == values[0].shape for value in values[1:])
        if axis is None and same_shape and node.op in _NEUTRAL and found.live.get(node.inputs[0].name) is not None:
            found.reductions.append(node)
            continue
        found.live[tensor.name] = axis


def _read_statics(node: gs.Node, found: Study, rng: np.random.Generator) -> None:
    for tensor in node.inputs:
        if not tensor.name or tensor.name in found.full:
            continue
        value = constant(tensor)
        if value is None:
            shape, dtype = static_shape(tensor), numpy_dtype(tensor)
            if shape is None or dtype is None:
                raise NotStaticError(
                    f"the {node.op} {_called(node)} also reads {tensor.name!r}, of unknown shape or type"
                )
            value = random_values(list(shape), dtype, rng)
            found.statics.append(tensor)
        for probe in found.probes:
            probe.values[tensor.name] = value


def _run(graph: gs.Graph, node: gs.Node, values: dict[str, np.ndarray]) -> None:
    inputs = [values[tensor.name] if tensor.name else None for tensor in node.inputs]
    try:
        made = run_node(node, inputs, graph)
    except EvaluationError as error:
        raise NotStaticError(f"the {node.op} {_called(node)} cannot be followed: {error}") from error
    for tensor, value in zip(node.outputs, made, strict=True):
        if value is not None:
            values[tensor.name] = value


def _row_axis(values: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> int | None:
    """The axis along which each value is the first one's rows, or None."""
    full = values[0]
    for axis in range(full.ndim):
        if full.shape[axis] == len(rows[0]) and all(
            value.ndim == full.ndim and value.shape[axis] == len(picked) and _close(value, full.take(picked, axis))
            for value, picked in zip(values, rows, strict=True)
        ):
            return axis
    return None


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal but for the order that floats were added in."""
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return _equal(a, b)
    return bool(np.allclose(a, b, rtol=1e-5, atol=1e-6 * float(np.abs(b).max(initial=0)), equal_nan=True))


def _plan_scatter(node: gs.Node, found: Study) -> _Plan:
    data, indices, updates = (found.full[tensor.name] for tensor in node.inputs)
    if found.live[node.inputs[1].name] != 0 or found.live.get(node.inputs[2].name) != 0:
        raise NotStaticError(f"the {node.op} {_called(node)} does not scatter row by row")
    places, width = _places(node, data, indices)
    if updates.shape[1:] != data.shape[width:]:
        raise NotStaticError(f"the {node.op} {_called(node)} does not scatter whole rows")
    rows, size = len(places), math.prod(data.shape[:width])
    inverse = np.full(size, rows)
    inverse[places[::-1]] = np.arange(rows)[::-1]
    if len(np.unique(places)) == rows:
        return _Plan(inverse, width, None)
    if not _equal(updates, updates[inverse[places]]):
        raise NotStaticError(f"the {node.op} {_called(node)} writes different rows to one place")
    if size * rows > _MAX_TABLE:
        raise NotStaticError(f"the {node.op} {_called(node)} writes {rows} rows to {size} places, several to one")
    table = np.zeros((size, rows), np.float32)
    table[places, np.arange(rows)] = 1
    return _Plan(inverse, width, table)


def _places(node: gs.Node, data: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, int]:
    """The flat place of each row in the first `width` axes of the data, and `width`."""
    if node.op == "ScatterND":
        width = indices.shape[-1]
        if indices.ndim != 2:
            raise NotStaticError(f"the {node.op} {_called(node)} has indices of {indices.ndim} dimensions")
        columns = [
            np.where(column < 0, column + size, column) for column, size in zip(indices.T, data.shape, strict=False)
        ]
        return np.ravel_multi_index(columns, data.shape[:width]), width
    spread = indices.reshape(len(indices), -1)
    if node.attrs.get("axis", 0) != 0 or not (spread == spread[:, :1]).all():
        raise NotStaticError(f"the {node.op} {_called(node)} does not scatter whole rows")
    return np.where(spread[:, 0] < 0, spread[:, 0] + data.shape[0], spread[:, 0]), 1


def _mask_scatter(node: gs.Node, plan: _Plan, found: Study, keep: gs.Tensor, emit: Emitter) -> None:
    data, _, updates = node.inputs
    shape, count = found.full[data.name].shape, len(found.probes[0].rows)
    half = np.array(0.5, np.float32)
    in_place = np.array_equal(plan.inverse, np.arange(count))
    if plan.table is not None:
        column = emit.reshape(emit.cast(keep, np.float32), (-1, 1))
        hit = emit("Greater", emit("MatMul", plan.table, column), half, dtype=bool)
    elif in_place:
        hit = keep
    else:
        longer = emit("Concat", emit.cast(keep, np.float32), np.zeros(1, np.float32), axis=0)
        hit = emit("Greater", emit("Gather", longer, plan.inverse.astype(np.int64), axis=0), half, dtype=bool)
    if not in_place:
        rows = np.minimum(plan.inverse, count - 1).astype(np.int64)
        updates = emit("Gather", updates, rows, dtype=data.dtype, axis=0)
    values = emit.reshape(updates, shape, dtype=data.dtype)
    hit = emit.reshape(hit, (*shape[: plan.width], *(1 for _ in shape[plan.width :])), dtype=bool)
    emit.finish(_choose(emit, hit, values, data), node.outputs[0])


def _choose(emit: Emitter, mask: gs.Tensor, values: gs.Tensor, others: gs.Tensor) -> gs.Variable:
    """``Where``, which ONNX Runtime lacks for booleans."""
    if others.dtype != np.bool_:
        return emit("Where", mask, values, others, dtype=others.dtype)
    chosen = emit("And", mask, values, dtype=bool)
    left = emit("And", emit("Not", mask, dtype=bool), others, dtype=bool)
    return emit("Or", chosen, left, dtype=bool)


def _reduced_value(node: gs.Node, found: Study) -> tuple[np.ndarray, int]:
    """What the reduction reads when every row is there, and the axis of the rows in it."""
    value, axis = found.full[node.inputs[0].name], found.live[node.inputs[0].name]
    if value.dtype.kind not in ("f" if node.op == "ReduceMean" else "fi") or axis is None:
        raise NotStaticError(f"the {node.op} {_called(node)} reduces {value.dtype}")
    return value, axis


def _mask_reduction(node: gs.Node, value: np.ndarray, axis: int, keep: gs.Tensor, emit: Emitter) -> None:
    x = node.inputs[0]
    shape = [1] * value.ndim
    shape[axis] = -1
    mask = emit.reshape(keep, shape, dtype=bool)
    neutral = np.array(_NEUTRAL[node.op](value.dtype), value.dtype)
    masked = emit("Where", mask, x, neutral, dtype=value.dtype)
    node.inputs[0] = masked
    if node.op != "ReduceMean":
        return
    # The mean over all rows is the sum over the selected ones, divided by a wrong count: put the count right.
    count = emit.reduce("ReduceSum", emit.cast(keep, value.dtype), [0], keepdims=False, dtype=value.dtype)
    # ONNX Runtime's mean of nothing is 0, so is this.
    some = emit("Max", count, np.array(1, value.dtype), dtype=value.dtype)
    factor = emit("Div", np.array(value.shape[axis], value.dtype), some, dtype=value.dtype)
    result = node.outputs[0]
    mean = gs.Variable(f"{emit.prefix}/mean_of_all", dtype=value.dtype)
    node.outputs[0] = mean
    emit.finish(emit("Mul", mean, factor, dtype=value.dtype), result)


def _called(node: gs.Node) -> str:
    return repr(node.name or node.outputs[0].name)
