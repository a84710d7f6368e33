"""Row 14: RoiAlign as GridSample, which every TensorRT has without a plugin (the plugin needs a GPU to even be parsed).

The images or FPN levels ``[L, C, H, W]`` are laid side by side in one atlas ``[1, C, rows, columns]``; all samples of
all boxes are one bilinear GridSample of it, and the mean over the samples of a bin is an AveragePool. The rules at
the border are RoiAlign's: a sample further than one pixel outside is 0, a nearer one is moved to the edge.

GridSample wants coordinates in -1..1, which costs precision. A side of the atlas is therefore 2^k + 1 pixels where
that is affordable: scaling by a power of two is exact, and what remains is float32's own resolution of a coordinate.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import static_shape
from components.surgery.surgery import TOLERANCE, Change, Options, Surgery, label, refusal

MAX_PADDING = 2**26
"""Bytes that the atlas may grow by for the sake of exact coordinates."""
_WHY = "TensorRT has RoiAlign as a plugin only, and TensorRT-RTX not at all without a GPU"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a RoiAlign."""
    return any(node.op == "RoiAlign" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each that averages a fixed number of samples of features of static shape."""
    changes = []
    for node in [node for node in graph.nodes if node.op == "RoiAlign" and label(node) not in options.skip]:
        problem = _problem(node, graph, options)
        changes.append(problem or _replace(graph, node, options))
    return changes


def _problem(node: gs.Node, graph: gs.Graph, options: Options) -> Change | None:
    if node.attrs.get("mode", "avg") != "avg":
        return refusal(node, f"mode is {node.attrs['mode']!r}", "use the mode 'avg' (torchvision's), or a CPU runtime")
    if not _samples(node, options):
        why = "sampling_ratio is 0: the number of samples depends on the size of each box"
        return refusal(
            node, why, "give the model's RoI pooling a sampling_ratio, for instance 2, and check its accuracy"
        )
    if static_shape(node.inputs[0]) is None:
        return refusal(node, "the shape of its feature map is not fixed", "fix the input's shape (target.input_shape)")
    if graph.opset < 16:
        return refusal(node, f"opset {graph.opset} has no GridSample", "export with opset 16 or later")
    return None


def _samples(node: gs.Node, options: Options) -> int:
    """Samples a bin and direction; 0 where adaptive."""
    return int(node.attrs.get("sampling_ratio", 0)) or options.sampling_ratio or 0


def _replace(graph: gs.Graph, node: gs.Node, options: Options) -> Change:
    features, rois, image = node.inputs
    count, channels, height, width = static_shape(features) or ()
    samples = _samples(node, options)
    bins = int(node.attrs.get("output_height", 1)), int(node.attrs.get("output_width", 1))
    steps = bins[0] * samples, bins[1] * samples
    across, (rows, columns) = _layout(count, channels, height, width)
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/roi_align")

    atlas = _atlas(emit, features, (count, channels, height, width), across, (rows, columns))
    half_pixel = node.attrs.get("coordinate_transformation_mode", _default_mode(graph)) == "half_pixel"
    scaled = emit("Mul", rois, np.array(node.attrs.get("spatial_scale", 1.0), np.float32))
    if half_pixel:
        scaled = emit("Sub", scaled, np.array(0.5, np.float32))
    place = emit.cast(image, np.int64)
    index = np.arange(count)
    grids, insides = [], []
    for axis, size, total, origin in (
        (0, width, columns, (index % across) * width),
        (1, height, rows, (index // across) * height),
    ):
        start, end = emit.column(scaled, axis), emit.column(scaled, axis + 2)
        at = _coordinates(emit, start, end, bins[1 - axis], samples, legacy=not half_pixel)
        insides.append(_inside(emit, at, size))
        moved = emit("Min", emit("Max", at, np.array(0, np.float32)), np.array(size - 1, np.float32))
        corner = emit.reshape(emit("Gather", origin.astype(np.float32), place, axis=0), (-1, 1))
        scale = np.array(2.0 / (total - 1), np.float32)
        grids.append(emit("Sub", emit("Mul", emit("Add", moved, corner), scale), np.array(1, np.float32)))
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
    means = _means(emit, masked, channels, bins, samples, fixed=static_shape(rois) is not None)
    pooled = emit("Transpose", means, perm=[1, 0, 2, 3])
    result = node.outputs[0]
    emit.finish(pooled, result)

    tolerance = max(TOLERANCE, _resolution(rows, columns))
    what = (
        f"GridSample of an atlas of {rows} x {columns} pixels (from {count} x {height} x {width}), "
        f"{samples} x {samples} samples a bin"
    )
    if tolerance > TOLERANCE:
        what += f"; float32 resolves a coordinate of it to {tolerance:.0e}, the tolerance here"
    if not node.attrs.get("sampling_ratio", 0):
        # Another number of samples is another model: the error is reported and is no reason to take it back.
        tolerance = math.inf
        what += ", where the model adapts their number to each box; this moves the numbers, check the accuracy"
    return Change(
        label(node),
        _WHY,
        what,
        inputs=(features.name, rois.name, image.name),
        outputs=(result.name,),
        tolerance=tolerance,
    )


def _default_mode(graph: gs.Graph) -> str:
    """The attribute is new in opset 16; before, RoiAlign had no offset."""
    return "half_pixel" if graph.opset >= 16 else "output_half_pixel"


def _layout(count: int, channels: int, height: int, width: int) -> tuple[int, tuple[int, int]]:
    """Images side by side, and the rows and columns of the atlas: the longer side is as short as can be."""
    best: tuple[int, int, tuple[int, int]] | None = None
    for across in range(1, count + 1):
        sides = -(-count // across) * height, across * width
        grown = _power_and_one(sides[0]), _power_and_one(sides[1])
        extra = 4 * channels * (math.prod(grown) - count * height * width)
        shape = grown if extra <= MAX_PADDING else (max(sides[0], 2), max(sides[1], 2))
        key = (max(shape), math.prod(shape))
        if best is None or key < best[:2]:
            best, chosen = (*key, shape), across
    assert best is not None
    return chosen, best[2]


def _resolution(rows: int, columns: int) -> float:
    """How well float32 resolves a coordinate of the atlas, in pixels: one rounding, or four where no side is exact."""
    side = max(rows, columns)
    exact = all(_power_and_one(size) == size for size in (rows, columns))
    return side * 2.0 ** (-24 if exact else -22)


def _power_and_one(size: int) -> int:
    """The smallest 2^k + 1 that is at least `size`."""
    return int((1 << max(size - 2, 0).bit_length()) + 1)


def _atlas(
    emit: Emitter, features: gs.Tensor, shape: tuple[int, ...], across: int, sides: tuple[int, int]
) -> gs.Variable:
    """Returns float [1, C, rows, columns]."""
    count, channels, height, width = shape
    down = -(-count // across)
    atlas: gs.Tensor = features
    if down * across > count:
        blank = np.array([0, 0, 0, 0, down * across - count, 0, 0, 0], np.int64)
        atlas = emit("Pad", atlas, blank, mode="constant")
    if down * across > 1:
        tiles = emit.reshape(atlas, (down, across, channels, height, width))
        atlas = emit("Transpose", tiles, perm=[2, 0, 3, 1, 4])
    flat = emit.reshape(atlas, (1, channels, down * height, across * width))
    below, beside = sides[0] - down * height, sides[1] - across * width
    if not below and not beside:
        return flat
    return emit("Pad", flat, np.array([0, 0, 0, 0, 0, 0, below, beside], np.int64), mode="constant")


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


def _inside(emit: Emitter, at: gs.Tensor, size: int) -> gs.Variable:
    """Returns bool [R, samples]: whether a sample counts, which it does up to one pixel outside."""
    low = emit("Less", at, np.array(-1, np.float32), dtype=bool)
    high = emit("Greater", at, np.array(size, np.float32), dtype=bool)
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


SURGERY = Surgery(row=14, name="RoiAlign", thread="design of the plugin-free detector", matches=matches, apply=apply)
