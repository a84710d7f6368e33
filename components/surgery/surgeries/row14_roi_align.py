"""Row 14: RoiAlign as GridSample, which every TensorRT has without a plugin (the plugin needs a GPU to even be parsed).

The images or FPN levels ``[L, C, H, W]`` are laid side by side in one atlas ``[1, C, rows, columns]``; all samples of
all boxes are one bilinear GridSample of it, and the mean over the samples of a bin is an AveragePool
(`roi_pooling.py`). Where several RoiAligns pool the same boxes from one pyramid and each box keeps the result of one
level, they become one (`roi_levels.py`).

GridSample wants coordinates in -1..1, which costs precision. A side of the atlas is therefore 2^k + 1 pixels where
that is affordable: scaling by a power of two is exact, and what remains is float32's own resolution of a coordinate.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import static_shape
from components.surgery.surgeries.roi_levels import merge_levels
from components.surgery.surgeries.roi_pooling import emit_pooling, form_of, power_and_one, resolution, samples_of
from components.surgery.surgery import TOLERANCE, Change, Options, Surgery, label, refusal

MAX_PADDING = 2**26
"""Bytes that the atlas may grow by for the sake of exact coordinates."""
WHY = "TensorRT has RoiAlign as a plugin only, and TensorRT-RTX not at all without a GPU"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a RoiAlign."""
    return any(node.op == "RoiAlign" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each that averages a fixed number of samples of features of static shape."""
    changes = merge_levels(graph, options)
    left = [node for node in graph.nodes if node.op == "RoiAlign" and node.outputs]
    for node in [node for node in left if label(node) not in options.skip]:
        problem = _problem(node, graph, options)
        changes.append(problem or _replace(graph, node, options))
    return changes


def _problem(node: gs.Node, graph: gs.Graph, options: Options) -> Change | None:
    if node.attrs.get("mode", "avg") != "avg":
        return refusal(node, f"mode is {node.attrs['mode']!r}", "use the mode 'avg' (torchvision's), or a CPU runtime")
    if not samples_of(node, options):
        why = "sampling_ratio is 0: the number of samples depends on the size of each box"
        return refusal(
            node,
            why,
            "give the model's RoI pooling a sampling_ratio, or surgery --sampling-ratio 2, and check its accuracy",
        )
    if static_shape(node.inputs[0]) is None:
        return refusal(
            node,
            "the shape of its feature map is not fixed",
            "fix the input's shape (--input-shape, target.input_shape)",
        )
    if graph.opset < 16:
        return refusal(node, f"opset {graph.opset} has no GridSample", "export with opset 16 or later")
    return None


def _replace(graph: gs.Graph, node: gs.Node, options: Options) -> Change:
    features, rois, image = node.inputs
    count, channels, height, width = static_shape(features) or ()
    across, sides = _layout(count, channels, height, width)
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/roi_align")

    atlas = _atlas(emit, features, (count, channels, height, width), across, sides)
    origins: tuple[gs.Tensor, gs.Tensor] | None = None
    if count > 1:
        index, place = np.arange(count), emit.cast(image, np.int64)
        row, column = ((index // across) * height, (index % across) * width)
        origins = tuple(
            emit.reshape(emit("Gather", origin.astype(np.float32), place, axis=0), (-1, 1)) for origin in (row, column)
        )
    scaled = emit("Mul", rois, np.array(node.attrs.get("spatial_scale", 1.0), np.float32))
    form = form_of(node, graph, options)
    sizes = np.array(height, np.float32), np.array(width, np.float32)
    fixed = static_shape(rois) is not None
    pooled = emit_pooling(emit, form, atlas, (channels, *sides), scaled, sizes, origins, fixed=fixed)
    result = node.outputs[0]
    emit.finish(pooled, result)

    tolerance = max(TOLERANCE, resolution(*sides))
    what = (
        f"GridSample of an atlas of {sides[0]} x {sides[1]} pixels (from {count} x {height} x {width}), "
        f"{form.samples} x {form.samples} samples a bin"
    )
    if tolerance > TOLERANCE:
        what += f"; float32 resolves a coordinate of it to {tolerance:.0e}, the tolerance here"
    if not node.attrs.get("sampling_ratio", 0):
        # Another number of samples is another model: the error is reported and is no reason to take it back.
        tolerance = math.inf
        what += ", where the model adapts their number to each box; this moves the numbers, check the accuracy"
    return Change(
        label(node),
        WHY,
        what,
        inputs=(features.name, rois.name, image.name),
        outputs=(result.name,),
        tolerance=tolerance,
    )


def _layout(count: int, channels: int, height: int, width: int) -> tuple[int, tuple[int, int]]:
    """Images side by side, and the rows and columns of the atlas: the longer side is as short as can be."""
    best: tuple[int, int, tuple[int, int]] | None = None
    for across in range(1, count + 1):
        sides = -(-count // across) * height, across * width
        grown = power_and_one(sides[0]), power_and_one(sides[1])
        extra = 4 * channels * (math.prod(grown) - count * height * width)
        shape = grown if extra <= MAX_PADDING else (max(sides[0], 2), max(sides[1], 2))
        key = (max(shape), math.prod(shape))
        if best is None or key < best[:2]:
            best, chosen = (*key, shape), across
    assert best is not None
    return chosen, best[2]


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


SURGERY = Surgery(row=14, name="RoiAlign", thread="design of the plugin-free detector", matches=matches, apply=apply)
