"""NonMaxSuppression, RoiAlign, and the If that asks whether there is a row at all."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import optional_input, static_shape
from components.surgery.static_rows.sizes import Flag, Sizes, as_sizes
from components.surgery.static_rows.spaces import lowest
from components.surgery.static_rows.values import Index, NotStaticError, OpenShapeError, Rows, Space, full_space, same
from components.surgery.static_rows.walk import Rule, Value, Walk, called
from components.surgery.surgeries.greedy_nms import CANDIDATES, NmsPlan, all_rows, emit_greedy_nms

MAX_ELEMENTS = 2**27
"""Largest comparison matrix [batch, classes, boxes, boxes], in elements; 512 MiB in float32."""
MAX_CANDIDATES = 3840
"""Boxes of one class that are kept of more: what one TopK of TensorRT can give."""


def non_max_suppression(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    """Every box of every class is a row; the real ones are those that are kept, best first."""
    boxes, scores, space = _candidates(walk, node, inputs)
    plan = _plan(walk, node, inputs, tuple(boxes.shape), tuple(scores.shape))
    target = space or full_space(plan.boxes)
    components = (full_space(plan.batch), full_space(plan.classes), target)
    # One prefix a suppression, which the probe of row 12 looks for.
    walk.emit.prefix = f"{node.name or node.outputs[0].name}/nms"
    note = ""
    rows: gs.Tensor = walk.emit.constant(all_rows(plan))
    fewer = None
    if plan.batch * plan.classes * plan.boxes**2 > MAX_ELEMENTS:
        if plan.batch * plan.classes > 1:
            raise NotStaticError(node, _too_many(plan))
        note = f", the best of {plan.boxes} (what is left out could only be kept after all that are kept of these)"
        fewer, places = _best(walk, target, scores)
        boxes, scores = (walk.emit("Gather", tensor, places, axis=axis) for tensor, axis in ((boxes, 1), (scores, 2)))
        plan = replace(plan, boxes=MAX_CANDIDATES, limit=min(plan.limit, MAX_CANDIDATES))
        column = walk.emit.reshape(places, (-1, 1))
        rows = walk.emit("Concat", np.zeros((MAX_CANDIDATES, 2), np.int64), column, axis=1)
    candidates = fewer or target
    valid = None
    if candidates.valid is not None:
        flags = walk.emit.cast(candidates.valid, np.float32)
        valid = walk.emit.reshape(flags, (1, 1, plan.boxes, 1))
    kept = emit_greedy_nms(walk.emit, plan, boxes, scores, valid)
    keep = walk.emit("Greater", walk.emit.reshape(kept.keep, (-1,)), np.array(0.5, np.float32))
    if plan.batch * plan.classes == 1:
        key: gs.Tensor = walk.emit.reshape(scores, (-1,))
    else:
        # Classes one after the other, in each the better box first; all these numbers are exact in float32.
        rank = walk.emit.reshape(walk.emit.reduce("ReduceSum", kept.earlier, [3], keepdims=False), (-1,))
        before = np.repeat(np.arange(0, plan.rows, plan.boxes), plan.boxes).astype(np.float32)
        key = walk.emit("Neg", walk.emit("Add", rank, before))
    inside = frozenset() if space is None else space.derived()
    result = Space(plan.rows, keep, key=key, most=plan.batch * plan.classes * plan.limit, inside=inside)
    rounds = min(plan.rounds, plan.boxes)
    walk.region.notes.append(f"{called(node)} is a fixed-point NMS of {plan.boxes} boxes{note} in {rounds} rounds")
    return [Rows(rows, 0, result, Index(components, 1, grid=fewer is None))]


def _best(walk: Walk, space: Space, scores: gs.Tensor) -> tuple[Space, gs.Tensor]:
    """The candidates with the highest scores, as many as one suppression takes, and their places."""
    key = walk.emit.reshape(scores, (-1,))
    hidden = walk.spaces.hide(Rows(key, 0, space), lowest(np.dtype(key.dtype)))
    size = np.array([MAX_CANDIDATES])
    _, places = walk.emit.node("TopK", [hidden, size], {"axis": 0}, outputs=2, name=CANDIDATES)
    if space.full:
        return full_space(MAX_CANDIDATES), places
    valid = walk.spaces.first_are_valid(MAX_CANDIDATES, walk.spaces.count(space))
    return Space(MAX_CANDIDATES, valid, prefix=True, inside=space.derived()), places


def _too_many(plan: NmsPlan) -> str:
    size = 4 * plan.batch * plan.classes * plan.boxes**2 / 2**20
    return (
        f"{plan.batch} x {plan.classes} x {plan.boxes} candidate boxes need a matrix of "
        f"{size:.0f} MiB, more than {4 * MAX_ELEMENTS / 2**20:.0f}; keep fewer candidates"
    )


def _candidates(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> tuple[gs.Tensor, gs.Tensor, Space | None]:
    boxes, scores = inputs[:2]
    rows = [value for value in (boxes, scores) if isinstance(value, Rows)]
    if len(rows) == 2:
        assert isinstance(boxes, Rows)
        assert isinstance(scores, Rows)
        if boxes.axis != 1 or scores.axis != 2 or not same(boxes.space, scores.space):
            raise NotStaticError(node, f"{called(node)} reads boxes and scores that are chosen in different ways")
        boxes, scores = walk.spaces.settle(boxes), walk.spaces.settle(scores)
        return boxes.tensor, scores.tensor, boxes.space
    if rows:
        raise NotStaticError(node, f"{called(node)} reads boxes and scores that are chosen in different ways")
    tensors = [walk.static(value) for value in (boxes, scores)]
    if any(tensor is None or static_shape(tensor) is None or len(tensor.shape) != 3 for tensor in tensors):
        raise OpenShapeError(node, "the number of its candidate boxes is not fixed")
    assert tensors[0] is not None
    assert tensors[1] is not None
    return tensors[0], tensors[1], None


def _plan(
    walk: Walk, node: gs.Node, inputs: Sequence[Value | None], boxes: tuple[int, ...], scores: tuple[int, ...]
) -> NmsPlan:
    limit = _number(node, inputs, 2, 0, "max_output_boxes_per_class")
    if limit < 1:
        raise NotStaticError(node, "its max_output_boxes_per_class is 0, so it selects nothing")
    if scores[2] == 0 or boxes[1] != scores[2]:
        raise NotStaticError(node, f"it has {boxes[1]} boxes and {scores[2]} scores")
    asks = optional_input(node, 4) is not None
    return NmsPlan(
        batch=scores[0],
        classes=scores[1],
        boxes=scores[2],
        iou_threshold=_number(node, inputs, 3, 0, "iou_threshold"),
        score_threshold=_number(node, inputs, 4, 0, "score_threshold") if asks else None,
        limit=int(min(limit, scores[2])),
        centered=bool(node.attrs.get("center_point_box", 0)),
        rounds=walk.options.nms_rounds,
    )


def _number(node: gs.Node, inputs: Sequence[Value | None], position: int, default: float, name: str) -> float:
    value = inputs[position] if len(inputs) > position else None
    if value is None:
        return default
    sizes = as_sizes(value)
    if sizes is None or sizes.known is None or sizes.known.size != 1:
        raise NotStaticError(node, f"its {name} is computed at run time")
    return float(sizes.known.reshape(()).item())


def _roi_align(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    features, rois, image = inputs
    if isinstance(features, Rows) or not isinstance(rois, Rows) or rois.axis != 0:
        raise NotStaticError(node, f"{called(node)} pools from features whose number depends on the data")
    x = walk.static(features)
    shape = None if x is None else static_shape(x)
    if isinstance(image, Rows) and not same(image.space, rois.space):
        raise NotStaticError(node, f"{called(node)} reads boxes and images that are chosen in different ways")
    if shape is not None and shape[0] == 1:
        # There is one image, so that is the one meant, also in padded rows.
        number: gs.Tensor = walk.emit.constant(np.zeros(rois.space.size, np.int64))
    elif isinstance(image, Rows) and shape is not None:
        plain = walk.spaces.plain(image)
        bounds = np.array(0, plain.dtype), np.array(shape[0] - 1, plain.dtype)
        number = walk.emit("Min", walk.emit("Max", plain.tensor, bounds[0]), bounds[1])
    else:
        raise OpenShapeError(node, f"{called(node)} pools from features whose number of images is not fixed")
    (made,) = walk.copy(node, [x, rois.tensor, number])
    return [Rows(made, 0, rois.space)]


def _if(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    condition = inputs[0]
    entry = condition.entries.reshape(-1)[0] if isinstance(condition, Sizes) and condition.entries.size == 1 else None
    region = walk.region
    if entry is None:
        raise NotStaticError(node, f"{called(node)} has a condition that depends on the data")
    branches = node.attrs["then_branch"], node.attrs["else_branch"]
    if not isinstance(entry, Flag):
        return walk.branch(branches[0] if entry else branches[1], region)
    without, with_rows = branches if entry.when_empty else branches[::-1]
    made = walk.branch(with_rows, region)
    for value, empty in zip(made, walk.branch(without, region), strict=True):
        nothing = isinstance(empty, gs.Tensor) and static_shape(empty) is not None and 0 in tuple(empty.shape)
        follows = isinstance(value, Rows) and entry.space in value.space.derived()
        if not (nothing and follows):
            raise NotStaticError(node, f"{called(node)} computes something else where there are no rows")
    region.notes.append(f"{called(node)} is gone")
    return made


RULES: dict[str, Rule] = {
    "NonMaxSuppression": non_max_suppression,
    "RoiAlign": _roi_align,
    "If": _if,
}
