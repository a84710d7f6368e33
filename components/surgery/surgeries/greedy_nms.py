"""Greedy non-maximum suppression in plain operators with static shapes, equal to ONNX's NonMaxSuppression.

Greedy NMS keeps a box if no better box that was kept overlaps it. Written as an equation, ``keep[i] = valid[i] and no j
with earlier[i, j], overlap[i, j], keep[j]``, this has one solution, and iterating it from "keep all" reaches it:
after r rounds every box is right whose chain of suppressions is no longer than r. Nothing needs to be sorted, since
whether j comes before i is a comparison of two scores (the lower index first where they are equal, as ONNX Runtime
has it).

Memory: two matrices [N, N] for each batch and class, 36 MB each for N = 3000 boxes in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter

KEEP, KEEP_BEFORE = "keep", "keep_one_round_before"
"""Last parts of the names of the two nodes that are equal when the rounds were enough."""
CANDIDATES = "candidates"
"""Last part of the name of the TopK that leaves out candidates, where there are too many for one matrix."""
_TINY = np.array(1e-30, np.float32)


@dataclass(frozen=True)
class NmsPlan:
    """Everything about one NonMaxSuppression that must be known beforehand."""

    batch: int
    classes: int
    boxes: int
    iou_threshold: float
    score_threshold: float | None
    limit: int
    """Boxes that are kept at most, of each class in each image."""
    centered: bool
    """Whether a box is [x_center, y_center, width, height] and not two corners."""
    rounds: int

    @property
    def rows(self) -> int:
        """Boxes over all batches and classes."""
        return self.batch * self.classes * self.boxes


@dataclass(frozen=True)
class Kept:
    """The result, with what is needed to put it in order."""

    keep: gs.Variable
    """float [batch, classes, boxes, 1], 1 where a box is kept."""
    earlier: gs.Variable
    """float [batch, classes, boxes, boxes], 1 where box j comes before box i."""


def emit_greedy_nms(
    emit: Emitter, plan: NmsPlan, boxes: gs.Tensor, scores: gs.Tensor, real: gs.Tensor | None = None
) -> Kept:
    """Writes the nodes.

    Args:
        emit: writes them.
        plan: sizes and thresholds.
        boxes: float [batch, boxes, 4].
        scores: float [batch, classes, boxes].
        real: float [1 or batch, 1 or classes, boxes, 1], 0 where a box only pads; None: all are real.
    """
    count = plan.boxes
    overlap = _overlap(emit, plan, boxes)
    column = emit.reshape(scores, (plan.batch, plan.classes, count, 1))
    row = emit.reshape(scores, (plan.batch, plan.classes, 1, count))
    index = np.arange(count, dtype=np.float32)
    lower_index = emit("Less", index.reshape(1, 1, 1, -1), index.reshape(1, 1, -1, 1), dtype=bool)
    ties = emit("And", emit("Equal", row, column, dtype=bool), lower_index, dtype=bool)
    earlier = emit("Or", emit("Greater", row, column, dtype=bool), ties, dtype=bool)
    suppresses = emit.cast(emit("And", earlier, overlap, dtype=bool), np.float32)
    valid = _valid(emit, plan, column, real)
    every = np.ones((plan.batch, plan.classes, count, 1), np.float32)
    before = valid if valid is not None else emit.constant(every)
    keep = emit_fixed_point(emit, suppresses, before, min(plan.rounds, count), filtered=valid is not None)
    earlier_float = emit.cast(earlier, np.float32)
    if plan.limit < count:
        place = emit("MatMul", earlier_float, keep)
        among_first = emit("Less", place, np.array(plan.limit - 0.5, np.float32), dtype=bool)
        keep = emit("Mul", keep, emit.cast(among_first, np.float32))
    return Kept(keep, earlier_float)


def emit_fixed_point(
    emit: Emitter, suppresses: gs.Tensor, valid: gs.Tensor, rounds: int, *, filtered: bool = True
) -> gs.Variable:
    """Writes the iteration.

    Args:
        emit: writes the nodes.
        suppresses: float [..., boxes, boxes], 1 where box j comes before box i and overlaps it.
        valid: float [..., boxes, 1], 1 where a box may be kept at all.
        rounds: of the iteration.
        filtered: whether there are boxes that may not be kept.

    Returns:
        float [..., boxes, 1], 1 where a box is kept.
    """
    before, half = valid, np.array(0.5, np.float32)
    for number in range(rounds):
        hits = emit("MatMul", suppresses, before)
        before = emit.cast(emit("Less", hits, half, dtype=bool), np.float32)
        if filtered:
            before = emit("Mul", before, valid)
        if number == rounds - 2:
            before = emit("Identity", before, name=KEEP_BEFORE)
    return emit("Identity", before, name=KEEP)


def emit_compact(emit: Emitter, flags: gs.Tensor, values: gs.Tensor, total: int) -> tuple[gs.Variable, gs.Variable]:
    """Writes the nodes that move the flagged values to the front, in order.

    Args:
        emit: writes them.
        flags: int64 [total], 0 or 1.
        values: int64 [total].
        total: number of values.

    Returns:
        int64 [total + 1], of which the first are the flagged values; and int64 [1], how many there are.
    """
    running = emit("CumSum", flags, np.array(0, np.int64), dtype=np.int64)
    number = emit.column(running, total - 1, 0, dtype=np.int64)
    flagged = emit("Greater", flags, np.array(0, np.int64), dtype=bool)
    before = emit("Sub", running, np.array(1, np.int64), dtype=np.int64)
    # What is not flagged goes to one more place behind the end, which nobody reads.
    place = emit("Where", flagged, before, np.array([total], np.int64), dtype=np.int64)
    return emit("ScatterElements", np.zeros(total + 1, np.int64), place, values, dtype=np.int64, axis=0), number


def all_rows(plan: NmsPlan) -> np.ndarray:
    """Every row that the operator could return: int64 [batch * classes * boxes, 3]."""
    grid = np.indices((plan.batch, plan.classes, plan.boxes), dtype=np.int64)
    return np.ascontiguousarray(grid.reshape(3, -1).T)


def _valid(emit: Emitter, plan: NmsPlan, column: gs.Tensor, real: gs.Tensor | None) -> gs.Tensor | None:
    """Returns float, 1 where a box may be kept; None where every box may."""
    if plan.score_threshold is None:
        return real
    threshold = np.array(plan.score_threshold, np.float32)
    good = emit.cast(emit("Greater", column, threshold, dtype=bool), np.float32)
    return good if real is None else emit("Mul", good, real)


def _overlap(emit: Emitter, plan: NmsPlan, boxes: gs.Tensor) -> gs.Variable:
    """Returns bool [batch, 1, boxes, boxes]: whether two boxes overlap by more than the threshold."""
    sides = _centered_sides(emit, boxes) if plan.centered else corner_sides(emit, boxes)
    ratio = emit_iou(emit, sides, (plan.batch, 1, plan.boxes, 1), (plan.batch, 1, 1, plan.boxes))
    return emit("Greater", ratio, np.array(plan.iou_threshold, np.float32), dtype=bool)


def emit_iou(
    emit: Emitter, sides: Sequence[tuple[gs.Tensor, gs.Tensor]], column: Sequence[int], row: Sequence[int]
) -> gs.Variable:
    """Writes intersection over union of all pairs of boxes.

    Args:
        emit: writes the nodes.
        sides: lower and upper end of the boxes in both directions, float [..., boxes, 1] each.
        column: shape in which the boxes are a column.
        row: shape in which they are a row.
    """
    (low_0, high_0), (low_1, high_1) = sides
    area = emit("Mul", emit("Sub", high_0, low_0), emit("Sub", high_1, low_1))

    def pair(op: str, x: gs.Tensor) -> gs.Variable:
        return emit(op, emit.reshape(x, column), emit.reshape(x, row))

    lengths = [emit("Relu", emit("Sub", pair("Min", high), pair("Max", low))) for low, high in sides]
    intersection = emit("Mul", *lengths)
    union = emit("Sub", pair("Add", area), intersection)
    # The same division as ONNX Runtime's, so that a box at the threshold falls on the same side; the guard only keeps
    # two empty boxes from 0 / 0.
    return emit("Div", intersection, emit("Max", union, _TINY))


def corner_sides(emit: Emitter, boxes: gs.Tensor) -> list[tuple[gs.Variable, gs.Variable]]:
    """Lower and upper end in both directions; the corners may be given in any order."""
    corners = [emit.column(boxes, index) for index in range(4)]
    return [(emit("Min", a, b), emit("Max", a, b)) for a, b in ((corners[0], corners[2]), (corners[1], corners[3]))]


def _centered_sides(emit: Emitter, boxes: gs.Tensor) -> list[tuple[gs.Variable, gs.Variable]]:
    x, y, width, height = (emit.column(boxes, index) for index in range(4))
    half = np.array(0.5, np.float32)
    halves = emit("Mul", width, half), emit("Mul", height, half)
    return [(emit("Sub", c, h), emit("Add", c, h)) for c, h in zip((x, y), halves, strict=True)]
