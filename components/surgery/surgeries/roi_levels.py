"""Several RoiAligns that pool the same boxes from the levels of a pyramid, and keep one result a box, as one (row 14).

Detectors pool each box from the level that fits its size. Once the number of boxes is fixed, that is a chain of
choices, ``Where(is of level 2, RoiAlign(level 2), Where(is of level 1, RoiAlign(level 1), ...))``, which pools every
box from every level. Here all levels lie in one atlas, and each box is pooled once, from its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, static_shape
from components.surgery.surgeries.roi_pooling import Form, emit_pooling, form_of, power_and_one, resolution
from components.surgery.surgery import TOLERANCE, Change, Options, label

_WHY = "every box is pooled from every level of the pyramid, with a RoiAlign each, which TensorRT has as a plugin only"


@dataclass(frozen=True)
class _Level:
    choice: gs.Node
    """The Where that takes this level's result."""
    pool: gs.Node
    """The RoiAlign."""


def merge_levels(graph: gs.Graph, options: Options) -> list[Change]:
    """Replaces each such chain of at least two levels."""
    if graph.opset < 16:
        return []
    chains = [chain for chain in _chains(graph, options) if len(chain) > 1]
    return [_merge(graph, chain, options) for chain in chains]


def _chains(graph: gs.Graph, options: Options) -> list[list[_Level]]:
    """Levels that belong together, the first choice first."""
    level_of = {}
    for node in graph.nodes:
        level = _level(node, graph, options)
        if level is not None:
            level_of[id(node.outputs[0])] = level
    followed = {id(level.choice.inputs[2]) for level in level_of.values() if id(level.choice.inputs[2]) in level_of}
    chains = []
    for key, last in level_of.items():
        if key in followed:
            continue
        chain = [last]
        while (before := level_of.get(id(chain[-1].choice.inputs[2]))) and _fit(before, last, graph, options):
            if len(before.choice.outputs[0].outputs) > 1:
                break
            chain.append(before)
        chains.append(chain[::-1])
    return chains


def _level(node: gs.Node, graph: gs.Graph, options: Options) -> _Level | None:
    if node.op != "Where" or not node.inputs[1].inputs:
        return None
    pool = node.inputs[1].inputs[0]
    if pool.op != "RoiAlign" or pool.attrs.get("mode", "avg") != "avg" or label(pool) in options.skip:
        return None
    shape, boxes, mask = (static_shape(tensor) for tensor in (pool.inputs[0], pool.inputs[1], node.inputs[0]))
    image = constant(pool.inputs[2])
    if shape is None or boxes is None or shape[0] != 1 or image is None or image.any():
        return None
    alone = len(node.inputs[1].outputs) == 1 and not any(node.inputs[1] is output for output in graph.outputs)
    return _Level(node, pool) if alone and mask == (boxes[0], 1, 1, 1) and pool.attrs.get("sampling_ratio") else None


def _fit(a: _Level, b: _Level, graph: gs.Graph, options: Options) -> bool:
    same_boxes = a.pool.inputs[1] is b.pool.inputs[1]
    channels = [static_shape(level.pool.inputs[0])[1] for level in (a, b)]  # type: ignore[index]
    forms = [form_of(level.pool, graph, options) for level in (a, b)]
    return same_boxes and channels[0] == channels[1] and forms[0] == forms[1]


def _merge(graph: gs.Graph, chain: Sequence[_Level], options: Options) -> Change:
    last = chain[-1]
    result, boxes, others = last.choice.outputs[0], last.pool.inputs[1], chain[0].choice.inputs[2]
    form: Form = form_of(last.pool, graph, options)
    features = [level.pool.inputs[0] for level in chain]
    shapes = [static_shape(tensor) or () for tensor in features]
    emit = Emitter(graph, f"{last.pool.name or result.name}/levels")
    atlas, sides, corners = _atlas(emit, features, shapes)
    masks = [level.choice.inputs[0] for level in chain]
    number = emit.constant(np.zeros(1, np.int64))
    for position, mask in enumerate(masks):
        flat = emit.reshape(mask, (-1,), dtype=bool)
        number = emit("Where", flat, np.array([position]), number, dtype=np.int64)

    def of_level(values: Sequence[float]) -> gs.Variable:
        return emit.reshape(emit("Gather", np.array(values, np.float32), number, axis=0), (-1, 1))

    scales = of_level([level.pool.attrs.get("spatial_scale", 1.0) for level in chain])
    sizes = of_level([shape[2] for shape in shapes]), of_level([shape[3] for shape in shapes])
    origins = of_level([corner[0] for corner in corners]), of_level([corner[1] for corner in corners])
    scaled = emit("Mul", boxes, scales)
    pooled = emit_pooling(emit, form, atlas, (shapes[0][1], *sides), scaled, sizes, origins, fixed=True)
    chosen = masks[0]
    for mask in masks[1:]:
        chosen = emit("Or", chosen, mask, dtype=bool)
    emit.finish(emit("Where", chosen, pooled, others), result)
    name = label(last.pool)
    for level in chain:
        for node in (level.choice, level.pool):
            node.inputs.clear()
            node.outputs.clear()
    tolerance = max(TOLERANCE, resolution(*sides))
    read = (*features, boxes, others, *masks)
    return Change(
        name,
        _WHY,
        f"{len(chain)} RoiAligns are one GridSample of an atlas of {sides[0]} x {sides[1]} pixels with all levels",
        inputs=tuple(dict.fromkeys(tensor.name for tensor in read if isinstance(tensor, gs.Variable))),
        outputs=(result.name,),
        tolerance=tolerance,
    )


def _atlas(
    emit: Emitter, features: Sequence[gs.Tensor], shapes: Sequence[tuple[int, ...]]
) -> tuple[gs.Tensor, tuple[int, int], list[tuple[int, int]]]:
    """The largest level on the left, the others below one another on the right, where a pyramid leaves room for them.

    Returns:
        float [1, C, rows, columns]; rows and columns; and row and column of each level's first pixel.
    """
    largest = max(range(len(shapes)), key=lambda position: shapes[position][2] * shapes[position][3])
    rest = [position for position in range(len(shapes)) if position != largest]
    width = max(shapes[position][3] for position in rest)
    height = max(shapes[largest][2], sum(shapes[position][2] for position in rest))
    across = shapes[largest][3] + width
    rows, columns = power_and_one(height), power_and_one(across)
    corners, row = [(0, 0)] * len(shapes), 0
    for position in rest:
        corners[position] = (row, shapes[largest][3])
        row += shapes[position][2]
    stack = [_grown(emit, features[position], shapes[position], shapes[position][2], width) for position in rest]
    column = stack[0] if len(stack) == 1 else emit("Concat", *stack, axis=2)
    right = _grown(emit, column, (1, 1, row, width), rows, columns - shapes[largest][3])
    left = _grown(emit, features[largest], shapes[largest], rows, shapes[largest][3])
    return emit("Concat", left, right, axis=3), (rows, columns), corners


def _grown(emit: Emitter, x: gs.Tensor, shape: Sequence[int], rows: int, columns: int) -> gs.Tensor:
    """`x` with zeros below and beside."""
    below, beside = rows - shape[2], columns - shape[3]
    if not below and not beside:
        return x
    return emit("Pad", x, np.array([0, 0, 0, 0, 0, 0, below, beside], np.int64), mode="constant")
