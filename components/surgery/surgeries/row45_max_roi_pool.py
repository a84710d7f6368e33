"""Row 45: MaxRoiPool, by tables of maxima.

The maximum over any stretch of pixels is that of two stretches of a power of two that cover it. So there is one table
for each pair of powers, of the maxima over windows of that height and width beginning at each pixel; a bin of a box
takes the largest of four entries. Which tables and which pixels is arithmetic on the boxes, rounded as ONNX Runtime
rounds.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype, static_shape
from components.surgery.surgery import Change, Options, Surgery, label, refusal

MAX_TABLES = 2**28
"""Bytes that the tables may take."""
_WHY = "TensorRT has no MaxRoiPool"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a MaxRoiPool."""
    return any(node.op == "MaxRoiPool" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each with features of static shape."""
    found = [node for node in graph.nodes if node.op == "MaxRoiPool" and label(node) not in options.skip]
    return [_replace(graph, node) for node in found]


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    x, rois, result, name = node.inputs[0], node.inputs[1], node.outputs[0], label(node)
    shape = static_shape(x)
    if shape is None:
        return refusal(
            node,
            f"{_WHY}; its features' shape is not fixed",
            "fix the input's shape (--input-shape, target.input_shape)",
        )
    if numpy_dtype(x) != np.float32:
        return refusal(node, f"{_WHY}; its features are {x.dtype}", "compute it in float32")
    count, channels, height, width = shape
    tall, wide = height.bit_length(), width.bit_length()
    size = 4 * tall * wide * count * channels * height * width
    if size > MAX_TABLES:
        why = f"{_WHY}; its tables of maxima would take {size / 2**20:.0f} MiB"
        return refusal(node, why, "use a smaller input, or RoiAlign in the model")
    pooled = [int(value) for value in node.attrs["pooled_shape"]]
    emit = Emitter(graph, f"{node.name or result.name}/max_roi_pool")
    table = _tables(emit, x, shape, tall, wide)
    scaled = emit("Mul", rois, np.array(node.attrs.get("spatial_scale", 1.0), np.float32))
    rows = _stretches(emit, scaled, 2, height, pooled[0])
    columns = _stretches(emit, scaled, 1, width, pooled[1])
    image = emit.reshape(emit.cast(emit.column(rois, 0), np.int64), [-1, 1, 1], np.int64)
    number = emit("Mul", _spread(emit, rows.power, 0), np.array(wide, np.int64), dtype=np.int64)
    number = emit("Add", number, _spread(emit, columns.power, 1), dtype=np.int64)
    number = emit("Mul", number, np.array(count, np.int64), dtype=np.int64)
    number = emit("Add", number, image, dtype=np.int64)
    first = emit("Mul", number, np.array(height * width, np.int64), dtype=np.int64)
    entries = []
    for row in (rows.first, rows.second):
        line = emit("Mul", _spread(emit, row, 0), np.array(width, np.int64), dtype=np.int64)
        line = emit("Add", first, line, dtype=np.int64)
        for column in (columns.first, columns.second):
            place = emit("Add", line, _spread(emit, column, 1), dtype=np.int64)
            entries.append(emit("Gather", table, place, axis=0))
    largest = emit("Transpose", emit("Max", *entries), perm=[0, 3, 1, 2])
    empty = emit("Or", _spread(emit, rows.empty, 0, bool), _spread(emit, columns.empty, 1, bool), dtype=bool)
    hidden = emit("Unsqueeze", empty, np.array([1], np.int64), dtype=bool)
    emit.finish(emit("Where", hidden, np.array(0, np.float32), largest), result)
    what = f"the largest of four entries of {tall * wide} tables of maxima"
    return Change(name, _WHY, what, inputs=(x.name, rois.name), outputs=(result.name,))


def _tables(emit: Emitter, x: gs.Tensor, shape: tuple[int, ...], tall: int, wide: int) -> gs.Variable:
    """Float [tables * N * H * W, C], heights first."""
    count, channels, height, width = shape
    tables = []
    for high in range(tall):
        column = _windows(emit, x, [1 << high, 1])
        tables += [emit.reshape(_windows(emit, column, [1, 1 << broad]), [1, *shape]) for broad in range(wide)]
    stacked = emit("Concat", *tables, axis=0) if len(tables) > 1 else tables[0]
    turned = emit("Transpose", stacked, perm=[0, 1, 3, 4, 2])
    return emit.reshape(turned, [len(tables) * count * height * width, channels])


def _windows(emit: Emitter, x: gs.Tensor, kernel: list[int]) -> gs.Tensor:
    """Maxima over windows that begin at each pixel; those that would end outside are read by no one."""
    if kernel == [1, 1]:
        return x
    pads = [0, 0, kernel[0] - 1, kernel[1] - 1]
    return emit("MaxPool", x, kernel_shape=kernel, strides=[1, 1], pads=pads)


class _Stretches:
    """The pixels of each bin along one axis, int64 [R, bins] each: two stretches of 2^power pixels."""

    def __init__(self, first: gs.Variable, second: gs.Variable, power: gs.Variable, empty: gs.Variable) -> None:
        self.first, self.second, self.power, self.empty = first, second, power, empty


def _stretches(emit: Emitter, rois: gs.Tensor, column: int, size: int, bins: int) -> _Stretches:
    one, zero, last = (np.array(value, np.float32) for value in (1, 0, size))
    start, end = (_rounded(emit, emit.column(rois, index)) for index in (column, column + 2))
    length = emit("Max", emit("Add", emit("Sub", end, start), one), one)
    step = emit("Div", length, np.array(bins, np.float32))
    number = np.arange(bins, dtype=np.float32).reshape(1, -1)
    begins = emit("Add", emit("Floor", emit("Mul", number, step)), start)
    ends = emit("Add", emit("Ceil", emit("Mul", number + 1, step)), start)
    begins, ends = (emit("Min", emit("Max", at, zero), last) for at in (begins, ends))
    pixels = emit("Sub", ends, begins)
    empty = emit("Less", pixels, one, dtype=bool)
    whole = emit.cast(emit("Max", pixels, one), np.int64)
    powers = np.array([max(n, 1).bit_length() - 1 for n in range(size + 1)], np.int64)
    power = emit("Gather", powers, whole, dtype=np.int64, axis=0)
    width = emit("Gather", (1 << powers).astype(np.float32), whole, axis=0)
    edge = np.array(size - 1, np.float32)
    first = emit.cast(emit("Min", begins, edge), np.int64)
    second = emit.cast(emit("Min", emit("Max", emit("Sub", ends, width), zero), edge), np.int64)
    return _Stretches(first, second, power, empty)


def _rounded(emit: Emitter, x: gs.Tensor) -> gs.Variable:
    """Half away from zero, as C rounds."""
    size = emit("Floor", emit("Add", emit("Abs", x), np.array(0.5, np.float32)))
    return emit("Mul", emit("Sign", x), size)


def _spread(emit: Emitter, x: gs.Tensor, axis: int, dtype: type = np.int64) -> gs.Variable:
    """[R, bins] as [R, bins, 1] or [R, 1, bins]."""
    return emit("Unsqueeze", x, np.array([2 - axis], np.int64), dtype=dtype)


SURGERY = Surgery(row=45, name="MaxRoiPool", thread="row 45 of the table", matches=matches, apply=apply)
