"""Row 13: NVIDIA's plugin EfficientNMS_TRT in the input, in plain operators (row 12's fixed point, no plugin).

What the plugin's documentation says: scores of at least the threshold, background class left out, are sorted over all
boxes and classes; the best 4096 go on (lower position first where equal); a box falls if an earlier one that stands
overlaps it by *at least* the IoU threshold, among the same class unless class_agnostic; the first max_output_boxes
that stand are returned as corners, zeros behind them. With anchors as third input the boxes are decoded first.

ONNX Runtime cannot run the plugin, so the result is not compared on the user's model. The test compares it with a
reference in NumPy. `fixed_point_probe` of row 12 tells for any input whether the rounds were enough.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.surgeries.greedy_nms import corner_sides, emit_fixed_point, emit_iou
from components.surgery.surgery import Change, Options, Surgery, label, refusal

MAX_CANDIDATES = 4096
"""How many of the best scores of an image the plugin looks at."""
MAX_ELEMENTS = 2**27
"""Largest comparison matrix [batch, candidates, candidates], in elements; 512 MiB in float32."""
_LOWEST = np.array(np.finfo(np.float32).min, np.float32)
_WHY = "EfficientNMS_TRT is a plugin, which only TensorRT itself has"
_WAY_OUT = "export with fixed numbers of boxes and classes, or keep the target tensorrt, which has the plugin"


@dataclass(frozen=True)
class _Plan:
    boxes: int
    classes: int
    per_class: bool
    """Whether each class has boxes of its own."""
    score_threshold: float
    """Of the raw scores: before the sigmoid, if there is one."""
    iou_threshold: float
    limit: int
    background: int
    sigmoid: bool
    agnostic: bool
    centered: bool
    rounds: int

    @property
    def candidates(self) -> int:
        return min(MAX_CANDIDATES, self.boxes * self.classes)


def matches(graph: gs.Graph) -> bool:
    """Whether there is the plugin's node."""
    return any(node.op == "EfficientNMS_TRT" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose numbers of boxes and classes are known; the batch may be open."""
    changes = []
    for node in [node for node in graph.nodes if node.op == "EfficientNMS_TRT" and label(node) not in options.skip]:
        plan = _plan(node, options)
        if plan is None:
            changes.append(refusal(node, f"{_WHY}; its numbers of boxes and classes are not fixed", _WAY_OUT))
            continue
        elements = _batch(node) * plan.candidates**2
        if elements > MAX_ELEMENTS:
            why = f"{_WHY}; comparing its candidates needs {4 * elements / 2**20:.0f} MiB a matrix"
            changes.append(refusal(node, f"{why}, more than {4 * MAX_ELEMENTS / 2**20:.0f}", "use a smaller batch"))
            continue
        changes.append(_replace(graph, node, plan))
    return changes


def _plan(node: gs.Node, options: Options) -> _Plan | None:
    boxes, scores = (tensor.shape for tensor in node.inputs[:2])
    fixed = [side for side in ((scores or ())[1:] if scores is not None else ()) if isinstance(side, int | np.integer)]
    if boxes is None or len(boxes) not in (3, 4) or len(fixed) != 2 or math.prod(fixed) == 0:
        return None
    if len(boxes) == 4 and boxes[2] not in (1, fixed[1]):
        return None
    sigmoid, threshold = bool(node.attrs.get("score_activation", 0)), float(node.attrs.get("score_threshold", 0.5))
    if sigmoid:
        threshold = (
            math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else (-(2.0**15) if threshold <= 0 else math.inf)
        )
    return _Plan(
        boxes=int(fixed[0]),
        classes=int(fixed[1]),
        per_class=len(boxes) == 4 and boxes[2] != 1,
        score_threshold=threshold,
        iou_threshold=float(node.attrs.get("iou_threshold", 0.5)),
        limit=int(node.attrs.get("max_output_boxes", 100)),
        background=int(node.attrs.get("background_class", -1)),
        sigmoid=sigmoid,
        agnostic=bool(node.attrs.get("class_agnostic", 0)),
        centered=int(node.attrs.get("box_coding", 0)) == 1,
        rounds=options.nms_rounds,
    )


def _batch(node: gs.Node) -> int:
    """Images at a time; 1 where that is open."""
    size = node.inputs[1].shape[0]
    return int(size) if isinstance(size, int | np.integer) else 1


def _replace(graph: gs.Graph, node: gs.Node, plan: _Plan) -> Change:
    called = label(node)
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/nms")
    kind = numpy_dtype(node.inputs[1]) or np.dtype(np.float32)
    boxes, scores = (_float(emit, tensor) for tensor in node.inputs[:2])
    best, place = _candidates(emit, plan, scores)
    box_number = emit("Div", place, np.array(plan.classes, np.int64), dtype=np.int64)
    category = emit(
        "Sub", place, emit("Mul", box_number, np.array(plan.classes, np.int64), dtype=np.int64), dtype=np.int64
    )
    corners = _decoded(emit, plan, node, boxes, place if plan.per_class else box_number, box_number)
    keep = _kept(emit, plan, best, corners, category)
    number, chosen, real = _first(emit, plan, keep)
    chosen_boxes = emit("GatherElements", corners, _fourfold(emit, chosen), axis=1)
    chosen_scores = emit("GatherElements", best, chosen, axis=1)
    if plan.sigmoid:
        chosen_scores = emit("Sigmoid", chosen_scores)
    chosen_classes = emit("GatherElements", category, chosen, dtype=np.int64, axis=1)
    zero = np.array(0, np.float32)
    real_column = emit.reshape(real, (-1, min(plan.limit, plan.candidates), 1), dtype=bool)
    results = [
        number,
        _padded(emit, plan, emit("Where", real_column, chosen_boxes, zero), np.float32, 3),
        _padded(emit, plan, emit("Where", real, chosen_scores, zero), np.float32, 2),
        _padded(emit, plan, emit("Where", real, chosen_classes, np.array(0, np.int64), dtype=np.int64), np.int64, 2),
    ]
    for made, old, dtype in zip(results, list(node.outputs), (np.int32, kind, kind, np.int32), strict=False):
        emit.finish(emit.cast(made, dtype), old)
    what = (
        f"plain operators: fixed-point NMS of the best {plan.candidates} scores in "
        f"{min(plan.rounds, plan.candidates)} rounds"
    )
    return Change(called, _WHY, what)


def _candidates(emit: Emitter, plan: _Plan, scores: gs.Tensor) -> tuple[gs.Variable, gs.Variable]:
    """The best scores, falling, and their places in [boxes * classes]; both [batch, candidates]."""
    flat = emit.reshape(scores, (-1, plan.boxes * plan.classes))
    allowed = emit("Not", emit("Less", flat, np.array(plan.score_threshold, np.float32), dtype=bool), dtype=bool)
    if 0 <= plan.background < plan.classes:
        foreground = np.arange(plan.boxes * plan.classes) % plan.classes != plan.background
        allowed = emit("And", allowed, foreground[None], dtype=bool)
    best = emit("TopK", emit("Where", allowed, flat, _LOWEST), np.array([plan.candidates], np.int64), axis=1)
    top = best.inputs[0]
    top.outputs.append(gs.Variable(f"{top.name}:1", dtype=np.int64))
    return best, top.outputs[1]


def _decoded(
    emit: Emitter, plan: _Plan, node: gs.Node, boxes: gs.Tensor, place: gs.Tensor, box_number: gs.Tensor
) -> gs.Variable:
    """The candidates' boxes as corners [batch, candidates, 4]; see the plugin's box coding."""
    count = plan.boxes * (plan.classes if plan.per_class else 1)
    picked = emit("GatherElements", emit.reshape(boxes, (-1, count, 4)), _fourfold(emit, place), axis=1)
    anchors = optional_input(node, 2)
    if anchors is not None:
        picked = _shift(emit, plan, picked, _anchors(emit, plan, _float(emit, anchors), box_number))
    if not plan.centered:
        return picked
    centre, half = _slice(emit, picked, 0, 2), emit("Mul", _slice(emit, picked, 2, 4), np.array(0.5, np.float32))
    return emit("Concat", emit("Sub", centre, half), emit("Add", centre, half), axis=2)


def _anchors(emit: Emitter, plan: _Plan, anchors: gs.Tensor, box_number: gs.Tensor) -> gs.Variable:
    shared = constant(anchors) is not None or (anchors.shape is not None and anchors.shape[0] == 1)
    if shared:
        return emit("Gather", emit.reshape(anchors, (plan.boxes, 4)), box_number, axis=0)
    return emit("GatherElements", anchors, _fourfold(emit, box_number), axis=1)


def _shift(emit: Emitter, plan: _Plan, boxes: gs.Tensor, anchors: gs.Tensor) -> gs.Variable:
    if not plan.centered:
        ordered = [
            emit("Concat", *(side[i] for i in (0, 1) for side in corner_sides(emit, x)), axis=2)
            for x in (boxes, anchors)
        ]
        return emit("Add", *ordered)
    size = _slice(emit, anchors, 2, 4)
    centre = emit("Add", emit("Mul", _slice(emit, boxes, 0, 2), size), _slice(emit, anchors, 0, 2))
    return emit("Concat", centre, emit("Mul", size, emit("Exp", _slice(emit, boxes, 2, 4))), axis=2)


def _kept(emit: Emitter, plan: _Plan, best: gs.Tensor, corners: gs.Tensor, category: gs.Tensor) -> gs.Variable:
    """1 where a candidate stands: float [batch, candidates, 1]."""
    count = plan.candidates
    column, row = (-1, count, 1), (-1, 1, count)
    ratio = emit_iou(emit, corner_sides(emit, corners), column, row)
    overlap = emit("Not", emit("Less", ratio, np.array(plan.iou_threshold, np.float32), dtype=bool), dtype=bool)
    if not plan.agnostic and plan.classes > 1:
        # As floats, which every runtime compares; class numbers are exact in them.
        number = emit.cast(category, np.float32)
        same = emit("Equal", emit.reshape(number, column), emit.reshape(number, row), dtype=bool)
        overlap = emit("And", overlap, same, dtype=bool)
    earlier = np.tri(count, k=-1, dtype=np.float32)[None]
    suppresses = emit("Mul", emit.cast(overlap, np.float32), earlier)
    below = emit("Less", best, np.array(plan.score_threshold, np.float32), dtype=bool)
    taken = emit("Equal", best, _LOWEST, dtype=bool)
    valid = emit.cast(emit("Not", emit("Or", below, taken, dtype=bool), dtype=bool), np.float32)
    return emit_fixed_point(emit, suppresses, emit.reshape(valid, column), min(plan.rounds, count))


def _first(emit: Emitter, plan: _Plan, keep: gs.Tensor) -> tuple[gs.Variable, gs.Variable, gs.Variable]:
    """How many are returned int64 [batch, 1], which candidates [batch, size], and whether each of these is real."""
    count = plan.candidates
    falling = np.arange(count, 0, -1, dtype=np.float32)[None]
    key = emit("Mul", emit.reshape(keep, (-1, count)), falling)
    first = emit("TopK", key, np.array([min(plan.limit, count)], np.int64), axis=1)
    top = first.inputs[0]
    top.outputs.append(gs.Variable(f"{top.name}:1", dtype=np.int64))
    real = emit("Greater", first, np.array(0.5, np.float32), dtype=bool)
    number = emit.reduce("ReduceSum", emit.cast(real, np.float32), [1], keepdims=True)
    return number, top.outputs[1], real


def _padded(emit: Emitter, plan: _Plan, x: gs.Tensor, dtype: type, rank: int) -> gs.Tensor:
    """`x` with max_output_boxes rows."""
    missing = plan.limit - plan.candidates
    if missing <= 0:
        return x
    pads = np.zeros(2 * rank, np.int64)
    pads[rank + 1] = missing
    return emit("Pad", x, pads, np.array(0, dtype), dtype=dtype)


def _fourfold(emit: Emitter, index: gs.Tensor) -> gs.Variable:
    """Indices [batch, n] as [batch, n, 4]."""
    column = emit("Unsqueeze", index, np.array([2], np.int64), dtype=np.int64)
    return emit("Expand", column, np.array([1, 1, 4], np.int64), dtype=np.int64)


def _slice(emit: Emitter, x: gs.Tensor, start: int, end: int) -> gs.Variable:
    return emit("Slice", x, *(np.array([value], np.int64) for value in (start, end, 2)))


def _float(emit: Emitter, x: gs.Tensor) -> gs.Tensor:
    return x if numpy_dtype(x) in (None, np.dtype(np.float32)) else emit.cast(x, np.float32)


SURGERY = Surgery(row=13, name="EfficientNMS_TRT", thread="TensorRT #523, #795", matches=matches, apply=apply)
