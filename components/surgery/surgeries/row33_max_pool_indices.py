"""Row 33: the Indices of MaxPool, and MaxUnpool, as SegNet-like models have them.

Indices that nothing reads are dropped. Others are found by comparing the maximum with each place of the window, the
first that is equal winning as in ONNX Runtime. MaxUnpool of windows that do not overlap is a choice by comparison,
since each index lies in its own window; in other cases the values are scattered.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.pooling import Axis, PoolError, at, axes_of, padded
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_WHY_INDICES = "TensorRT's MaxPool has no Indices"
_WHY_UNPOOL = "TensorRT has no MaxUnpool"
_WAY_OUT = "fix the input's height and width (--input-shape, target.input_shape)"


def matches(graph: gs.Graph) -> bool:
    """Whether a MaxPool has a second output, or there is a MaxUnpool."""
    return any(_with_indices(node) or node.op == "MaxUnpool" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces MaxUnpool first, which looks at the MaxPool that its indices come from."""
    wanted = {id(tensor) for tensor in graph.outputs}
    unpools = [node for node in graph.nodes if node.op == "MaxUnpool" and label(node) not in options.skip]
    changes = [_unpool(graph, node) for node in unpools]
    for node in list(graph.nodes):
        if not _with_indices(node) or label(node) in options.skip:
            continue
        indices = node.outputs[1]
        if indices.is_empty() or (not indices.outputs and id(indices) not in wanted):
            node.outputs = node.outputs[:1]
            what, names = "they are dropped, since nothing reads them", (node.inputs[0].name, node.outputs[0].name)
            changes.append(Change(label(node), _WHY_INDICES, what, inputs=names[:1], outputs=names[1:]))
            continue
        changes.append(_indices(graph, node))
    return changes


def _with_indices(node: gs.Node) -> bool:
    return node.op == "MaxPool" and len(node.outputs) > 1


def _indices(graph: gs.Graph, node: gs.Node) -> Change:
    x, (values, indices) = node.inputs[0], node.outputs
    name, dtype = label(node), numpy_dtype(node.inputs[0])
    try:
        axes = axes_of(node, graph)
        image = _Image(x, axes, by_column=bool(node.attrs.get("storage_order", 0)))
        _check_windows(axes)
    except PoolError as error:
        return refusal(node, f"{_WHY_INDICES}; {error}", _WAY_OUT)
    emit = Emitter(graph, f"{node.name or values.name}/indices")
    node.outputs = [values]
    node.attrs.pop("storage_order", None)
    around = padded(emit, x, axes)
    if node.attrs.get("ceil_mode", 0):
        # Tools differ over what rounding up gives where windows reach into the padding; this says it in numbers.
        node.attrs["ceil_mode"] = 0
        node.attrs["pads"] = [axis.before for axis in axes] + [max(axis.after, 0) for axis in axes]
        node.attrs.pop("auto_pad", None)
        if any(axis.after >= axis.kernel for axis in axes):  # more than a pooling may pad by itself
            node.inputs[0] = around
            node.attrs["pads"] = [0] * (2 * len(axes))
    places = list(itertools.product(*(range(axis.kernel) for axis in axes)))
    found: gs.Tensor | np.ndarray = image.numbers([axis.positions(p) for axis, p in zip(axes, places[-1], strict=True)])
    for place in reversed(places[:-1]):
        here = at(emit, around, axes, dict(enumerate(place)))
        here.dtype = dtype
        equal = emit("Equal", here, values, dtype=bool)
        number = image.numbers([axis.positions(p) for axis, p in zip(axes, place, strict=True)])
        found = emit("Where", equal, number, found, dtype=np.int64)
    made = emit("Add", found, image.planes(emit, x), dtype=np.int64)
    emit.finish(made, indices)
    what = f"they are computed by comparing the maximum with {len(places)} places of the window"
    return Change(name, _WHY_INDICES, what, inputs=(x.name,), outputs=(indices.name,))


def _check_windows(axes: Sequence[Axis]) -> None:
    for position, axis in enumerate(axes):
        places = np.stack([axis.positions(place) for place in range(axis.kernel)])
        if not ((places >= 0) & (places < (axis.size or 0))).any(0).all():
            raise PoolError(f"a window of dimension {position + 2} has only padding, which has no index")


class _Image:
    """How the pixels of [N, C, ...] are numbered."""

    def __init__(self, x: gs.Tensor, axes: Sequence[Axis], *, by_column: bool) -> None:
        sizes = [axis.size for axis in axes]
        if x.shape is None or None in sizes or not isinstance(x.shape[1], int | np.integer):
            raise PoolError("its channels, height and width are not fixed")
        self.channels = int(x.shape[1])
        self.batch = int(x.shape[0]) if isinstance(x.shape[0], int | np.integer) else None
        self.sizes = [int(size) for size in sizes if size is not None]
        self.by_column = by_column

    def numbers(self, positions: Sequence[np.ndarray], *, spread: bool = False) -> np.ndarray:
        """Number, within its plane, of the pixel at each combination of positions: int64 [1, 1, ...].

        Args:
            positions: pixels along each axis, [out] or, to be spread, [out, kernel].
            spread: whether the kernel's places stay axes of their own: [1, 1, out, kernel, out, kernel].
        """
        order = range(len(self.sizes)) if self.by_column else reversed(range(len(self.sizes)))
        step, strides = 1, {}
        for axis in order:
            strides[axis] = step
            step *= self.sizes[axis]
        width = 2 if spread else 1
        total = np.zeros([1] * (2 + width * len(self.sizes)), np.int64)
        for axis, pixels in enumerate(positions):
            shape = [1] * total.ndim
            first = 2 + width * axis
            shape[first : first + width] = pixels.shape
            total = total + (pixels * strides[axis]).reshape(shape)
        return total

    def planes(self, emit: Emitter, like: gs.Tensor, axes: int | None = None) -> gs.Tensor | np.ndarray:
        """Number of the first pixel of each plane: int64 [N, C, 1, ...], with the batch of `like`."""
        ones = [1] * (axes or len(self.sizes))
        pixels = math.prod(self.sizes)
        if self.batch is not None:
            first = np.arange(self.batch * self.channels, dtype=np.int64) * pixels
            return first.reshape(self.batch, self.channels, *ones)
        batch = emit.column(emit("Shape", like, dtype=np.int64), 0, 0, np.int64)
        count = emit("Mul", batch, np.array(self.channels * pixels, np.int64), dtype=np.int64)
        bounds = np.array(0, np.int64), emit.reshape(count, [], np.int64), np.array(pixels, np.int64)
        return emit.reshape(emit("Range", *bounds, dtype=np.int64), [-1, self.channels, *ones], np.int64)


def _unpool(graph: gs.Graph, node: gs.Node) -> Change:
    x, indices, result = node.inputs[0], node.inputs[1], node.outputs[0]
    name, dtype = label(node), numpy_dtype(node.inputs[0]) or np.dtype(np.float32)
    fixed = x.shape is not None and all(isinstance(size, int | np.integer) for size in x.shape[1:])
    out = _out_shape(node) if fixed else None
    if out is None:
        return refusal(node, f"{_WHY_UNPOOL}; its channels, height and width are not fixed", _WAY_OUT)
    emit = Emitter(graph, f"{node.name or result.name}/unpool")
    pool = _own_windows(node, out, graph)
    if pool is not None:
        made, what = _choose(emit, node, pool), "a choice by comparing indices, since the windows do not overlap"
    else:
        made, what = _scatter(emit, x, indices, out, dtype), "ScatterND of the values to their indices"
    emit.finish(made, result)
    return Change(name, _WHY_UNPOOL, what, inputs=(x.name, indices.name), outputs=(result.name,))


def _out_shape(node: gs.Node) -> list[int] | None:
    """Sizes of the output but for the batch: [C, H, W]."""
    x, given = node.inputs[0], optional_input(node, 2)
    if given is not None:
        values = constant(given)
        return None if values is None else [int(value) for value in values[1:]]
    kernels = node.attrs["kernel_shape"]
    strides = node.attrs.get("strides") or [1] * len(kernels)
    pads = node.attrs.get("pads") or [0] * (2 * len(kernels))
    sizes = [
        (int(size) - 1) * stride - pads[i] - pads[i + len(kernels)] + kernel
        for i, (size, stride, kernel) in enumerate(zip(x.shape[2:], strides, kernels, strict=True))
    ]
    return [int(x.shape[1]), *sizes]


def _own_windows(node: gs.Node, out: Sequence[int], graph: gs.Graph) -> _Image | None:
    """The image that was pooled, if the indices come from windows that lie side by side in an image of size `out`."""
    pool = node.inputs[1].inputs[0] if node.inputs[1].inputs else None
    if pool is None or pool.op != "MaxPool" or pool.attrs.get("storage_order", 0):
        return None
    try:
        axes = axes_of(pool, graph)
        image = _Image(pool.inputs[0], axes, by_column=False)
    except PoolError:
        return None
    apart = all(axis.kernel == axis.stride and axis.dilation == 1 and axis.before == 0 >= axis.after for axis in axes)
    return image if apart and [image.channels, *image.sizes] == list(out) else None


def _choose(emit: Emitter, node: gs.Node, image: _Image) -> gs.Tensor:
    """Each value goes to the place of its window that has its index."""
    x, indices = node.inputs[0], node.inputs[1]
    dtype = numpy_dtype(x) or np.dtype(np.float32)
    pool = indices.inputs[0]
    kernels = [int(value) for value in pool.attrs["kernel_shape"]]
    outs = [size // kernel for size, kernel in zip(image.sizes, kernels, strict=True)]
    batch = -1 if image.batch is None else image.batch
    apart = [batch, image.channels, *itertools.chain(*((out, 1) for out in outs))]
    windows = [np.arange(out * kernel).reshape(out, kernel) for out, kernel in zip(outs, kernels, strict=True)]
    numbers = image.numbers(windows, spread=True)
    here = emit(
        "Sub", emit.reshape(indices, apart, np.int64), image.planes(emit, indices, 2 * len(outs)), dtype=np.int64
    )
    hit = emit("Equal", here, numbers, dtype=bool)
    spread = emit("Where", hit, emit.reshape(x, apart, dtype), np.array(0, dtype), dtype=dtype)
    together = [batch, image.channels, *(out * kernel for out, kernel in zip(outs, kernels, strict=True))]
    made = emit.reshape(spread, together, dtype)
    rest = [size - out * kernel for size, out, kernel in zip(image.sizes, outs, kernels, strict=True)]
    if not any(rest):
        return made
    return emit("Pad", made, np.array([0] * (len(rest) + 4) + rest, np.int64), dtype=dtype, mode="constant")


def _scatter(emit: Emitter, x: gs.Tensor, indices: gs.Tensor, out: Sequence[int], dtype: np.dtype) -> gs.Tensor:
    batch = x.shape[0] if isinstance(x.shape[0], int | np.integer) else None
    if batch is None:
        first = emit.column(emit("Shape", x, dtype=np.int64), 0, 0, np.int64)
        count: gs.Tensor | np.ndarray = emit("Mul", first, np.array(math.prod(out), np.int64), dtype=np.int64)
    else:
        count = np.array([batch * math.prod(out)], np.int64)
    nothing = emit("Expand", np.zeros(1, dtype), count, dtype=dtype)
    places, values = emit.reshape(indices, [-1, 1], np.int64), emit.reshape(x, [-1], dtype)
    flat = emit("ScatterND", nothing, places, values, dtype=dtype)
    return emit.reshape(flat, [-1 if batch is None else int(batch), *out], dtype)


SURGERY = Surgery(
    row=33, name="MaxPool Indices and MaxUnpool", thread="row 33 of the table", matches=matches, apply=apply
)
