"""Row 47: EmbeddingBag, which both of torch's exporters write as a Loop over the bags.

Each round slices the rows of one bag by two offsets and reduces them. All rows are gathered once instead; which row
belongs to which bag is a table of the offsets, and the sum is one MatMul with it. Mean divides by the size of the bag,
the maximum hides the rows of other bags. Number of bags and rows may be open. What is recognised is the slice, its
offsets and the reduction; the proof compares the rest.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input, scalar, static_shape
from components.surgery.sorting import bodies
from components.surgery.surgery import Change, Options, Surgery, label, refusal

MAX_TABLE = 2**27
"""Elements of the table of a maximum [bags, rows, width]; 512 MiB in float32."""
_WHY = "TensorRT cannot build a Loop whose slices depend on offsets"
_COPIES = ("Identity", "Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceSum")


@dataclass(frozen=True)
class _Bags:
    """A Loop that is an EmbeddingBag."""

    loop: gs.Node
    result: gs.Tensor
    """[bags, width]."""
    count: gs.Tensor
    """How many bags."""
    rows: Callable[[Emitter], gs.Tensor]
    """Writes all rows [rows, width]."""
    sliced: gs.Tensor
    starts: tuple[gs.Tensor, int]
    """Vector of offsets, and which of them is the first bag's."""
    ends: tuple[gs.Tensor, int]
    reduction: str
    zero: bool
    """Whether an empty bag is 0 instead of what the reduction of nothing is."""
    width: int
    dtype: np.dtype


def matches(graph: gs.Graph) -> bool:
    """Whether there is a Loop that is an EmbeddingBag."""
    return any(_recognise(node) is not None for node in graph.nodes if node.op == "Loop")


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each."""
    changes = []
    for node in [node for node in graph.nodes if node.op == "Loop" and label(node) not in options.skip]:
        bags = _recognise(node)
        if bags is None:
            continue
        many, rows = static_shape(bags.count), static_shape(bags.sliced)
        most = scalar(bags.count) if many is not None else None
        size = math.prod((int(most or 1), (rows or (1,))[0], bags.width))
        if bags.reduction == "ReduceMax" and size > MAX_TABLE:
            why = f"{_WHY}, and the maximum of its bags needs a table of {4 * size / 2**20:.0f} MiB"
            changes.append(refusal(node, why, "use mode='sum' or 'mean', or smaller batches"))
            continue
        changes.append(_replace(graph, bags))
    return changes


def _replace(graph: gs.Graph, bags: _Bags) -> Change:
    called = label(bags.loop)
    emit = Emitter(graph, f"{called}/bags")
    rows = bags.rows(emit)
    starts, ends = (_offsets(emit, vector, first, bags.count) for vector, first in (bags.starts, bags.ends))
    place = _numbers(emit, bags.sliced)
    behind = emit("Not", emit("Less", place, starts, dtype=bool), dtype=bool)
    table = emit("And", behind, emit("Less", place, ends, dtype=bool), dtype=bool)
    if bags.reduction == "ReduceMax":
        hidden = np.array(-np.inf, bags.dtype)
        mask = emit("Unsqueeze", table, np.array([2], np.int64), dtype=bool)
        made = emit.reduce(
            "ReduceMax", emit("Where", mask, rows, hidden, dtype=bags.dtype), [1], keepdims=False, dtype=bags.dtype
        )
    else:
        numbers = emit.cast(table, bags.dtype)
        made = emit("MatMul", numbers, rows, dtype=bags.dtype)
        if bags.reduction == "ReduceMean":
            size = emit.reduce("ReduceSum", numbers, [1], keepdims=True, dtype=bags.dtype)
            made = emit("Div", made, emit("Max", size, np.array(1, bags.dtype), dtype=bags.dtype), dtype=bags.dtype)
    if bags.zero:
        empty = emit("Equal", starts, ends, dtype=bool)
        made = emit("Where", empty, np.array(0, bags.dtype), made, dtype=bags.dtype)
    emit.finish(made, bags.result)
    how = "a masked maximum" if bags.reduction == "ReduceMax" else "one MatMul with the table of bags"
    return Change(called, _WHY, f"EmbeddingBag ({bags.reduction}): all rows gathered, {how}")


def _offsets(emit: Emitter, vector: gs.Tensor, first: int, count: gs.Tensor) -> gs.Variable:
    """Offsets of all bags as a column."""
    number = emit.reshape(count, (1,), dtype=np.int64)
    end = number if first == 0 else emit("Add", number, np.array([first], np.int64), dtype=np.int64)
    part = emit("Slice", vector, np.array([first], np.int64), end, np.array([0], np.int64), dtype=np.int64)
    return emit.reshape(part, (-1, 1), dtype=np.int64)


def _numbers(emit: Emitter, rows: gs.Tensor) -> gs.Tensor:
    """Numbers of the rows as a row."""
    shape = static_shape(rows)
    if shape is not None:
        return emit.constant(np.arange(shape[0], dtype=np.int64)[None])
    size = emit("Gather", emit("Shape", rows, dtype=np.int64), np.array(0, np.int64), dtype=np.int64, axis=0)
    numbers = emit("Range", np.array(0, np.int64), size, np.array(1, np.int64), dtype=np.int64)
    return emit.reshape(numbers, (1, -1), dtype=np.int64)


def _recognise(loop: gs.Node) -> _Bags | None:
    body = loop.attrs["body"]
    inside = {id(tensor) for node in _nodes_within(body) for tensor in node.outputs} | {id(x) for x in body.inputs}
    counters = {id(body.inputs[0])} if body.inputs else set()
    if len(body.outputs) == 2 and len(body.inputs) == 2 and optional_input(loop, 0) is not None:
        made, result, count = body.outputs[1], loop.outputs[0], loop.inputs[0]
    else:
        listed = _listed(loop)
        if listed is None:
            return None
        made, result, count, counter = listed
        counters.add(id(counter))
    zero = bool(made.inputs) and made.inputs[0].op == "If"
    found = [node for node in _nodes_within(body) if node.op in _REDUCTIONS and _reduces_rows(node)]
    if not found:
        return None
    reduction = min(found, key=lambda node: _REDUCTIONS.index(node.op))
    slices: list[gs.Node] = []
    rows = _rows(reduction.inputs[0], inside, slices)
    if rows is None or not slices:
        return None
    bounds = [[_bound(tensor, counters, inside) for tensor in node.inputs[1:3]] for node in slices]
    starts, ends = bounds[0]
    if starts is None or ends is None or any(not _same(pair, bounds[0]) for pair in bounds[1:]):
        return None
    dtype, sliced = numpy_dtype(result), slices[0].inputs[0]
    shapes = [tensor.shape for tensor in (result, reduction.inputs[0], sliced) if tensor.shape is not None]
    width = next((shape[-1] for shape in shapes if len(shape) == 2 and isinstance(shape[-1], int)), 1)
    if dtype is None:
        return None
    return _Bags(loop, result, count, rows, sliced, starts, ends, reduction.op, zero, int(width), dtype)


def _listed(loop: gs.Node) -> tuple[gs.Tensor, gs.Tensor, gs.Tensor, gs.Tensor] | None:
    """Of a Loop that counts up and puts each round's result into a list: result of a round, all, count, counter."""
    body = loop.attrs["body"]
    if len(body.inputs) != 4 or len(body.outputs) != 3 or len(loop.outputs) != 2:
        return None
    # The exporter writes the two states in any order.
    compare, *makers = [_maker(tensor) for tensor in body.outputs]
    inserts = [
        (place, node) for place, node in enumerate(makers, 1) if node is not None and node.op == "SequenceInsert"
    ]
    if len(inserts) != 1 or compare is None or compare.op != "Less":
        return None
    ((at, insert),) = inserts
    counter, first = body.inputs[4 - at], loop.inputs[4 - at]
    if scalar(first) != 0 or _affine(body.outputs[3 - at], {id(counter)}) != 1:
        return None
    readers = loop.outputs[at - 1].outputs
    if len(readers) != 1 or readers[0].op != "ConcatFromSequence" or readers[0].attrs.get("axis", 0) != 0:
        return None
    return insert.inputs[1], readers[0].outputs[0], compare.inputs[1], counter


def _reduces_rows(node: gs.Node) -> bool:
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1:
        values = constant(node.inputs[1])
        axes = None if values is None else values.tolist()
    return bool(axes == [0])


def _rows(tensor: gs.Tensor, inside: set[int], slices: list[gs.Node]) -> Callable[[Emitter], gs.Tensor] | None:
    """How to write all rows of what is a slice's rows in a round; the slices on the way."""
    if id(tensor) not in inside:
        return lambda _: tensor
    node = _maker(tensor)
    if node is None:
        return None
    if node.op == "If":
        branch = node.attrs["else_branch"]
        return _rows(branch.outputs[0], inside, slices)
    if node.op == "Slice":
        axes = optional_input(node, 3)
        if (
            id(node.inputs[0]) in inside
            or (axes is not None and scalar(axes) != 0)
            or optional_input(node, 4) is not None
        ):
            return None
        slices.append(node)
        return lambda _: node.inputs[0]
    if node.op not in ("Gather", "Mul", "Unsqueeze", "Identity", "Cast"):
        return None
    parts = [_rows(given, inside, slices) for given in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None

    def write(emit: Emitter) -> gs.Tensor:
        return emit(node.op, *(part(emit) for part in known), dtype=node.outputs[0].dtype, **node.attrs)

    return write


def _bound(tensor: gs.Tensor, counters: set[int], inside: set[int]) -> tuple[gs.Tensor, int] | None:
    """The vector that a bound is an element of, and the place of the first round's."""
    node = _maker(tensor)
    while node is not None and node.op in _COPIES:
        node = _maker(node.inputs[0])
    if node is None or node.op not in ("Gather", "Slice") or id(node.inputs[0]) in inside:
        return None
    place = _affine(node.inputs[1], counters)
    if place is None or (node.op == "Slice" and _affine(node.inputs[2], counters) != place + 1):
        return None
    return node.inputs[0], place


def _same(pair: Sequence[tuple[gs.Tensor, int] | None], other: Sequence[tuple[gs.Tensor, int] | None]) -> bool:
    return all(
        a is not None and b is not None and a[0] is b[0] and a[1] == b[1] for a, b in zip(pair, other, strict=True)
    )


def _affine(tensor: gs.Tensor, counters: set[int]) -> int | None:
    """`n` where a tensor is the number of the round plus n."""
    total = 0
    while id(tensor) not in counters:
        node = _maker(tensor)
        if node is None:
            return None
        if node.op in _COPIES:
            tensor = node.inputs[0]
            continue
        if node.op != "Add":
            return None
        known = [_plain(given) for given in node.inputs]
        if (known[0] is None) is (known[1] is None):
            return None
        total += int(next(value for value in known if value is not None))
        tensor = node.inputs[0 if known[0] is None else 1]
    return total


def _plain(tensor: gs.Tensor) -> float | None:
    """A constant, also behind a cast."""
    node = _maker(tensor)
    while node is not None and node.op in _COPIES:
        tensor = node.inputs[0]
        node = _maker(tensor)
    return scalar(tensor)


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if tensor.inputs else None


def _nodes_within(body: gs.Graph) -> Iterator[gs.Node]:
    waiting = [body]
    while waiting:
        for node in waiting.pop().nodes:
            yield node
            waiting += [inner for _, inner in bodies(node)]


SURGERY = Surgery(
    row=47,
    name="EmbeddingBag",
    thread="TensorRT: torch.nn.EmbeddingBag exports as Loop",
    matches=matches,
    apply=apply,
)
