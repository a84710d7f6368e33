"""RoiAlign's sampling as GridSample of an atlas, in which the images lie side by side (row 14).

The rules at the border are RoiAlign's: a sample further than one pixel outside is 0, a nearer one is moved to the edge.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter, Operand
from components.surgery.surgery import Options


def samples_of(node: gs.Node, options: Options) -> int:
    """Samples a bin and direction; 0 where adaptive."""
    return int(node.attrs.get("sampling_ratio", 0)) or options.sampling_ratio or 0


@dataclass(frozen=True)
class Form:
    """How a RoiAlign samples."""

    bins: tuple[int, int]
    samples: int
    """Of a bin, in each direction."""
    half_pixel: bool


def form_of(node: gs.Node, graph: gs.Graph, options: Options) -> Form:
    """Reads the attributes of a RoiAlign."""
    mode = node.attrs.get("coordinate_transformation_mode", _default_mode(graph))
    bins = int(node.attrs.get("output_height", 1)), int(node.attrs.get("output_width", 1))
    return Form(bins, samples_of(node, options), mode == "half_pixel")


def emit_pooling(
    emit: Emitter,
    form: Form,
    atlas: gs.Tensor,
    shape: tuple[int, int, int],
    boxes: gs.Tensor,
    sizes: tuple[Operand, Operand],
    origins: tuple[gs.Tensor, gs.Tensor] | None,
    *,
    fixed: bool,
) -> gs.Variable:
    """Writes the nodes that pool boxes from images in an atlas.

    Args:
        emit: writes them.
        form: how it samples.
        atlas: float [1, channels, rows, columns].
        shape: channels, rows and columns of it.
        boxes: float [R, 4] in pixels of their image.
        sizes: height and width of the image: one number, or [R, 1].
        origins: row and column of the image's first pixel in the atlas, [R, 1]; None: there is one image.
        fixed: whether R is known.

    Returns:
        float [R, channels, bins, bins].
    """
    channels, rows, columns = shape
    steps = form.bins[0] * form.samples, form.bins[1] * form.samples
    scaled = emit("Sub", boxes, np.array(0.5, np.float32)) if form.half_pixel else boxes
    grids, insides = [], []
    for axis, total in ((0, columns), (1, rows)):
        size = sizes[1 - axis]
        start, end = emit.column(scaled, axis), emit.column(scaled, axis + 2)
        at = _coordinates(emit, start, end, form.bins[1 - axis], form.samples, legacy=not form.half_pixel)
        insides.append(_inside(emit, at, size))
        last = emit("Sub", size, np.array(1, np.float32)) if isinstance(size, gs.Tensor) else size - np.float32(1)
        moved = emit("Min", emit("Max", at, np.array(0, np.float32)), last)
        placed = moved if origins is None else emit("Add", moved, origins[1 - axis])
        scale = np.array(2.0 / (total - 1), np.float32)
        grids.append(emit("Sub", emit("Mul", placed, scale), np.array(1, np.float32)))
    grid = _grid(emit, grids[0], grids[1], steps)
    sampled = emit(
        "GridSample", atlas, grid, name="GridSample", mode="bilinear", padding_mode="border", align_corners=1
    )
    inside = emit(
        "And",
        emit.reshape(insides[1], (-1, steps[0], 1), bool),
        emit.reshape(insides[0], (-1, 1, steps[1]), bool),
        dtype=bool,
    )
    masked = emit("Mul", sampled, emit.reshape(emit.cast(inside, np.float32), (1, 1, -1, steps[1])))
    means = _means(emit, masked, channels, form.bins, form.samples, fixed=fixed)
    return emit("Transpose", means, perm=[1, 0, 2, 3])


def _default_mode(graph: gs.Graph) -> str:
    """The attribute is new in opset 16; before, RoiAlign had no offset."""
    return "half_pixel" if graph.opset >= 16 else "output_half_pixel"


def resolution(rows: int, columns: int) -> float:
    """How well float32 resolves a coordinate of the atlas, in pixels: one rounding, or four where no side is exact."""
    side = max(rows, columns)
    exact = all(power_and_one(size) == size for size in (rows, columns))
    return side * 2.0 ** (-24 if exact else -22)


def power_and_one(size: int) -> int:
    """The smallest 2^k + 1 that is at least `size`."""
    return int((1 << max(size - 2, 0).bit_length()) + 1)


def _coordinates(
    emit: Emitter, start: gs.Tensor, end: gs.Tensor, bins: int, samples: int, *, legacy: bool
) -> gs.Variable:
    """Where the samples are along one axis, in pixels: float [R, bins * samples], rounded as ONNX Runtime rounds."""
    length = emit("Sub", end, start)
    if legacy:
        length = emit("Max", length, np.array(1, np.float32))
    step = emit("Div", length, np.array(bins, np.float32))
    number = np.repeat(np.arange(bins), samples).astype(np.float32).reshape(1, -1)
    within = (np.tile(np.arange(samples), bins) + 0.5).astype(np.float32).reshape(1, -1)
    bin_start = emit("Add", start, emit("Mul", number, step))
    return emit("Add", bin_start, emit("Div", emit("Mul", within, step), np.array(samples, np.float32)))


def _inside(emit: Emitter, at: gs.Tensor, size: Operand) -> gs.Variable:
    """Returns bool [R, samples]: whether a sample counts, which it does up to one pixel outside."""
    low = emit("Less", at, np.array(-1, np.float32), dtype=bool)
    high = emit("Greater", at, size, dtype=bool)
    return emit("Not", emit("Or", low, high, dtype=bool), dtype=bool)


def _grid(emit: Emitter, x: gs.Tensor, y: gs.Tensor, steps: tuple[int, int]) -> gs.Variable:
    """Returns float [1, R * rows of samples, columns of samples, 2] from x [R, columns] and y [R, rows]."""
    every = np.zeros((1, *steps, 1), np.float32)
    columns = emit("Add", emit.reshape(x, (-1, 1, steps[1], 1)), every)
    rows = emit("Add", emit.reshape(y, (-1, steps[0], 1, 1)), every)
    return emit.reshape(emit("Concat", columns, rows, axis=3), (1, -1, steps[1], 2))


def _means(
    emit: Emitter, sampled: gs.Tensor, channels: int, bins: tuple[int, int], samples: int, *, fixed: bool
) -> gs.Tensor:
    """The mean of the samples of each bin: float [C, R, bins, bins]."""
    if fixed and samples > 1:
        size = [samples, samples]
        return emit.reshape(emit("AveragePool", sampled, kernel_shape=size, strides=size), (channels, -1, *bins))
    if samples == 1:
        return emit.reshape(sampled, (channels, -1, *bins))
    # Without boxes, which a number that is not fixed allows, there is nothing that could be pooled.
    apart = emit.reshape(sampled, (channels, -1, bins[0], samples, bins[1], samples))
    return emit.reduce("ReduceMean", apart, [3, 5], keepdims=False)
