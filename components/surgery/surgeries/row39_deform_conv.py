"""Row 39: DeformConv as one GridSample and a 1 x 1 Conv.

Each place of the kernel reads the image between pixels, zeros outside, which is GridSample. The offset groups go into
the batch, so one GridSample reads for all of them; the mask is a product, and what is left of the convolution is a
Conv over channels and kernel places.

GridSample wants coordinates in -1..1, which costs precision. The image is padded with zeros to sides of 2^k + 1 where
that is affordable: scaling by a power of two is exact, and what remains is float32's own resolution of a coordinate.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype, optional_input
from components.surgery.surgery import TOLERANCE, Change, Options, Surgery, label, refusal

MAX_PADDING = 2**26
"""Bytes, for one image, that it may grow by for the sake of exact coordinates."""
_WHY = "TensorRT has no DeformConv"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a DeformConv."""
    return any(node.op == "DeformConv" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each of known channels, height and width."""
    found = [node for node in graph.nodes if node.op == "DeformConv" and label(node) not in options.skip]
    return [_replace(graph, node) for node in found]


def _fixed(tensor: gs.Tensor, rank: int = 4) -> list[int] | None:
    """Sizes but for the batch, if they are known."""
    sizes = (tensor.shape or [])[1:]
    known = len(sizes) == rank - 1 and all(isinstance(size, int | np.integer) for size in sizes)
    return [int(size) for size in sizes] if known else None


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    x, weights, offset = node.inputs[:3]
    bias, mask, result, name = optional_input(node, 3), optional_input(node, 4), node.outputs[0], label(node)
    image, shifts, kernel = _fixed(x), _fixed(offset), _fixed(weights)
    if image is None or shifts is None or kernel is None or not isinstance(weights.shape[0], int | np.integer):
        way_out = "fix the input's height and width (--input-shape, target.input_shape); 3-D and 1-D have no equivalent"
        return refusal(node, f"{_WHY}; its channels, height and width are not fixed", way_out)
    if numpy_dtype(x) != np.float32:
        return refusal(node, f"{_WHY}; its input is {x.dtype}", "compute it in float32")
    groups = int(node.attrs.get("offset_group", 1))
    (channels, height, width), (_, rows, columns) = image, shifts
    places = kernel[1] * kernel[2]
    emit = Emitter(graph, f"{node.name or result.name}/deform_conv")
    sides = _sides(image)
    padded: gs.Tensor = x
    if sides != (height, width):
        ends = np.array([0, 0, 0, 0, 0, 0, sides[0] - height, sides[1] - width], np.int64)
        padded = emit("Pad", x, ends, mode="constant")
    stacked = emit.reshape(padded, [-1, channels // groups, *sides])
    moves = emit.reshape(offset, [-1, places, 2, rows, columns])
    grid = []
    for axis in (1, 0):  # x comes first in a grid, and last in the offsets
        move = emit("Gather", moves, np.array(axis, np.int64), axis=2)
        at = emit("Add", move, _still(node, kernel[1:], (rows, columns), axis))
        scale = np.array(2.0 / (sides[axis] - 1), np.float32)
        placed = emit("Sub", emit("Mul", at, scale), np.array(1, np.float32))
        grid.append(emit.reshape(placed, [-1, places * rows, columns, 1]))
    # Without a mode it is linear in the naming of every opset.
    read = emit("GridSample", stacked, emit("Concat", *grid, axis=3), padding_mode="zeros", align_corners=1)
    if mask is not None:
        read = emit("Mul", read, emit.reshape(mask, [-1, 1, places * rows, columns]))
    columns_of = emit.reshape(read, [-1, channels * places, rows, columns])
    flat = emit.reshape(weights, [int(weights.shape[0]), kernel[0] * places, 1, 1])
    rest = [] if bias is None else [bias]
    made = emit("Conv", columns_of, flat, *rest, kernel_shape=[1, 1], group=int(node.attrs.get("group", 1)))
    emit.finish(made, result)
    exact = all(_power_and_one(side) == side for side in sides)
    tolerance = max(TOLERANCE, max(sides) * 2.0 ** (-23 if exact else -21))
    what = f"GridSample of {places} places and a 1 x 1 Conv"
    if tolerance > TOLERANCE:
        what += (
            f"; float32 resolves a coordinate of {sides[0]} x {sides[1]} pixels to {tolerance:.0e}, the tolerance here"
        )
    reads = [tensor.name for tensor in (x, weights, offset, bias, mask) if isinstance(tensor, gs.Variable)]
    return Change(name, _WHY, what, inputs=tuple(reads), outputs=(result.name,), tolerance=tolerance)


def _sides(image: Sequence[int]) -> tuple[int, int]:
    """Height and width of the padded image."""
    channels, *sides = image
    grown = [_power_and_one(side) for side in sides]
    extra = 4 * channels * (math.prod(grown) - math.prod(sides))
    # One pixel has no width that could be scaled.
    chosen = grown if extra <= MAX_PADDING else [max(side, 2) for side in sides]
    return chosen[0], chosen[1]


def _power_and_one(size: int) -> int:
    """The smallest 2^k + 1 that is at least `size`."""
    return int((1 << max(size - 2, 0).bit_length()) + 1)


def _still(node: gs.Node, kernel: Sequence[int], outs: tuple[int, int], axis: int) -> np.ndarray:
    """Where each place of the kernel reads without an offset: float [1, places, rows, columns], in pixels."""
    stride = (node.attrs.get("strides") or [1, 1])[axis]
    dilation = (node.attrs.get("dilations") or [1, 1])[axis]
    pad = (node.attrs.get("pads") or [0] * 4)[axis]
    steps = np.arange(outs[axis]) * stride - pad
    at = np.arange(kernel[axis])[:, None] * dilation + steps
    shape = (kernel[0], 1, outs[0], 1) if axis == 0 else (1, kernel[1], 1, outs[1])
    every = np.broadcast_to(at.reshape(shape), (*kernel, *outs))
    return every.reshape(1, -1, *outs).astype(np.float32)


SURGERY = Surgery(row=39, name="DeformConv", thread="row 39 of the table", matches=matches, apply=apply)
