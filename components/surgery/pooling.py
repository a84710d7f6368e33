"""The windows of a pooling, as strided slices: one for each place in the kernel."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.graphs import numpy_dtype

_FAR = np.iinfo(np.int32).max
"""End of a slice that has none; INT64_MAX would not fit TensorRT's integers."""


class PoolError(Exception):
    """Why the windows of a pooling are not known."""


@dataclass(frozen=True)
class Axis:
    """How the windows lie along one spatial axis."""

    size: int | None
    """None where it is open."""
    out: int | None
    kernel: int
    stride: int
    dilation: int
    before: int
    """Padding."""
    after: int
    """Padding that the windows reach into; negative where they stop short of the end."""

    @property
    def reach(self) -> int:
        """Pixels from the first to the last of a window, both included."""
        return self.dilation * (self.kernel - 1) + 1

    def bounds(self, place: int) -> tuple[int, int]:
        """Start and end, in the padded axis, of the slice that has place `place` of every window."""
        first = place * self.dilation
        if self.out is not None:
            return first, first + (self.out - 1) * self.stride + 1
        beyond = self.reach - 1 - first
        return first, -beyond if beyond else _FAR

    def positions(self, place: int) -> np.ndarray:
        """Int [out]: which pixel of the axis, without padding, place `place` of each window is."""
        return np.arange(self.out or 0) * self.stride + place * self.dilation - self.before


def axes_of(node: gs.Node, graph: gs.Graph) -> list[Axis]:
    """The spatial axes of a MaxPool.

    Raises:
        PoolError: padding or output size depend on a dimension that is open.
    """
    x = node.inputs[0]
    if x.shape is None:
        raise PoolError("the shape of its input is not known")
    kernels = [int(value) for value in node.attrs["kernel_shape"]]
    rank = len(kernels)
    strides = node.attrs.get("strides") or [1] * rank
    dilations = node.attrs.get("dilations") or [1] * rank
    pads = node.attrs.get("pads") or [0] * (2 * rank)
    sizes = [int(size) if isinstance(size, int | np.integer) else None for size in x.shape[2:]]
    same = node.attrs.get("auto_pad", "NOTSET")
    outs = _out_sizes(node, graph, sizes)
    found = []
    for i in range(rank):
        kernel, stride, dilation = kernels[i], int(strides[i]), int(dilations[i])
        reach = dilation * (kernel - 1) + 1
        size, out = sizes[i], outs[i]
        before, after = int(pads[i]), int(pads[i + rank])
        if size is None and stride > 1:
            # How far the last window reaches depends on the size, and so does rounding of sizes below a window's.
            raise PoolError(f"dimension {i + 2} of its input is not fixed, and its windows depend on it")
        if same == "VALID":
            before = after = 0
        if same.startswith("SAME") and dilation > 1:
            raise PoolError(f"for auto_pad {same} with dilations the ONNX standard and ONNX Runtime differ")
        if same.startswith("SAME"):
            total = reach - 1 if size is None or out is None else max((out - 1) * stride + reach - size, 0)
            before = total // 2 if same == "SAME_UPPER" else total - total // 2
            after = total - before
        if size is not None and out is not None:
            after = (out - 1) * stride + reach - size - before
        found.append(Axis(size, out, kernel, stride, dilation, before, after))
    return found


def _out_sizes(node: gs.Node, graph: gs.Graph, sizes: list[int | None]) -> list[int | None]:
    """What ONNX Runtime makes of the sizes; the rules for rounding up have changed over the opsets."""
    probe = gs.Node("MaxPool", attrs=node.attrs, outputs=[gs.Variable("y")])
    open_size = max(int(value) for value in node.attrs["kernel_shape"]) * 8
    reach = max(node.attrs.get("dilations") or [1]) * open_size
    x = np.zeros((1, 1, *(reach if size is None else size for size in sizes)), np.float32)
    try:
        (made,) = run_node(probe, [x], graph)
    except EvaluationError as error:
        raise PoolError(f"ONNX Runtime does not run it: {error}") from error
    assert made is not None
    return [None if size is None else out for size, out in zip(sizes, made.shape[2:], strict=True)]


def lowest(dtype: np.dtype) -> np.ndarray:
    """The value that never wins."""
    return np.array(np.finfo(dtype).min if dtype.kind == "f" else np.iinfo(dtype).min, dtype)


def padded(emit: Emitter, x: gs.Tensor, axes: list[Axis]) -> gs.Tensor:
    """`x` with the padding that its windows reach into, which never wins."""
    before, after = [max(axis.before, 0) for axis in axes], [max(axis.after, 0) for axis in axes]
    if not any(before + after):
        return x
    dtype = numpy_dtype(x) or np.dtype(np.float32)
    pads = np.array([0, 0, *before, 0, 0, *after], np.int64)
    return emit("Pad", x, pads, lowest(dtype), dtype=dtype, mode="constant")


def at(emit: Emitter, x: gs.Tensor, axes: list[Axis], places: dict[int, int]) -> gs.Tensor:
    """The slice of padded `x` with one place of every window, along the spatial axes that are named in `places`."""
    dtype = numpy_dtype(x) or np.dtype(np.float32)
    bounds = {axis: axes[axis].bounds(place) for axis, place in places.items()}
    steps = [axes[axis].stride for axis in places]
    starts, ends = [start for start, _ in bounds.values()], [end for _, end in bounds.values()]
    return emit(
        "Slice", x, *(np.array(v, np.int64) for v in (starts, ends, [a + 2 for a in places], steps)), dtype=dtype
    )
