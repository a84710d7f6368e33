"""Row 12: NonMaxSuppression (TensorRT #523, #795): its number of boxes depends on the data.

Two cases. Where the indices end in a keep-mask, in whatever form the exporter wrote it, the mask is computed by static
operators and nothing else changes. Where the selected rows themselves leave the graph, they get a fixed number: the
real rows come first, then the first of them again, and a new output says how many are real.
"""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.dynamic_rows import NotStaticError, Study, check_prefixes, lift, selections, study
from components.surgery.emit import Emitter
from components.surgery.graphs import optional_input, scalar, static_shape
from components.surgery.surgeries.greedy_nms import (
    KEEP,
    KEEP_BEFORE,
    NmsPlan,
    all_rows,
    emit_greedy_nms,
    emit_selected_rows,
)
from components.surgery.surgery import Change, Options, Surgery, label, refusal

MAX_ELEMENTS = 2**27
"""Largest comparison matrix [batch, classes, boxes, boxes], in elements; 512 MiB in float32."""
_WHY = "the number of boxes depends on the data, which no plugin-free TensorRT can build"
_WAY_OUT = (
    "export the detector with fixed-size outputs (a keep-mask and scores of -1), or run this model on a CPU runtime"
)


def matches(graph: gs.Graph) -> bool:
    """Whether there is a NonMaxSuppression."""
    return any(node.op == "NonMaxSuppression" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each that has static sizes and constant thresholds."""
    changes = []
    for node in [node for node in graph.nodes if node.op == "NonMaxSuppression"]:
        if label(node) in options.skip:
            continue
        try:
            changes.append(_replace(graph, node, options))
        except NotStaticError as error:
            changes.append(refusal(node, str(error), _WAY_OUT))
    return changes


def fixed_point_probe(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one more output for each NMS that this surgery wrote: how many boxes its last round changed.

    0 in every one of them proves, for that input, that the rounds were enough and the result is greedy NMS. Outputs are
    called ``<name>/unsettled``, float scalars.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = {node.name for node in model.graph.node}
    for node in model.graph.node:
        prefix, _, last = node.name.rpartition("/")
        before = f"{prefix}/{KEEP_BEFORE}"
        if last != KEEP or before not in names:
            continue
        change, size, output = f"{prefix}/change", f"{prefix}/change_size", f"{prefix}/unsettled"
        probe.graph.node.extend(
            [
                onnx.helper.make_node("Sub", [node.output[0], f"{before}:0"], [change], name=change),
                onnx.helper.make_node("Abs", [change], [size], name=size),
                onnx.helper.make_node("ReduceSum", [size], [output], name=output, keepdims=0),
            ]
        )
        probe.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    return probe


def _replace(graph: gs.Graph, node: gs.Node, options: Options) -> Change:
    graph.toposort()
    plan = _plan(node, options)
    boxes, scores = node.inputs[:2]
    selected = node.outputs[0]
    rows = all_rows(plan)
    picked = selections(plan.rows, ordered=False)
    found = study(graph, selected, rows, 0, picked)
    emit = Emitter(graph, f"{node.name or selected.name}/nms")
    if found.outputs:
        padded = [np.r_[chosen, np.full(plan.rows - len(chosen), chosen[0])] for chosen in picked]
        check_prefixes(graph, found, padded)
        return _pad(graph, node, plan, found, emit)
    before, ends_before = len(graph.nodes), found.borders
    try:
        kept = emit_greedy_nms(emit, plan, boxes, scores)
        keep = emit("Greater", emit.reshape(kept.keep, (-1,)), np.array(0.5, np.float32), dtype=bool)
        ends = lift(found, emit.constant(rows), keep, emit)
    except NotStaticError:
        del graph.nodes[before:]
        raise
    what = f"fixed-point NMS of {plan.boxes} boxes in {min(plan.rounds, plan.boxes)} rounds; {'; '.join(ends)}"
    inputs = (boxes.name, scores.name, *(tensor.name for tensor in found.statics))
    return Change(label(node), _WHY, what, inputs=tuple(dict.fromkeys(inputs)), outputs=ends_before)


def _pad(graph: gs.Graph, node: gs.Node, plan: NmsPlan, found: Study, emit: Emitter) -> Change:
    selected = node.outputs[0]
    boxes, scores = node.inputs[:2]
    kept = emit_greedy_nms(emit, plan, boxes, scores)
    padded, number = emit_selected_rows(emit, plan, kept)
    size = plan.batch * plan.classes * min(plan.limit, plan.boxes)
    emit.finish(padded, selected)
    number.name, number.shape = f"{selected.name}_rows", (1,)
    graph.outputs.append(number)
    for tensor in found.outputs:
        tensor.shape = [None] * found.full[tensor.name].ndim
    names = tuple(tensor.name for tensor in found.outputs)
    what = (
        f"fixed-point NMS of {plan.boxes} boxes; {', '.join(names)} now have {size} rows: the real ones first, "
        f"then the first again; output {number.name} says how many are real"
    )
    return Change(label(node), _WHY, what, padded=names)


def _plan(node: gs.Node, options: Options) -> NmsPlan:
    boxes, scores = (static_shape(tensor) for tensor in node.inputs[:2])
    if boxes is None or scores is None or len(boxes) != 3 or len(scores) != 3:
        raise NotStaticError("the number of its candidate boxes is not fixed")
    limit, iou = _number(node, 2, 0, "max_output_boxes_per_class"), _number(node, 3, 0, "iou_threshold")
    if limit < 1:
        raise NotStaticError("its max_output_boxes_per_class is 0, so it selects nothing")
    elements = scores[0] * scores[1] * scores[2] ** 2
    if elements > MAX_ELEMENTS or scores[2] == 0:
        raise NotStaticError(
            f"{scores[0]} x {scores[1]} x {scores[2]} candidate boxes need a matrix of "
            f"{4 * elements / 2**20:.0f} MiB, more than {4 * MAX_ELEMENTS / 2**20:.0f}; keep fewer candidates"
        )
    return NmsPlan(
        batch=scores[0],
        classes=scores[1],
        boxes=scores[2],
        iou_threshold=iou,
        score_threshold=None if optional_input(node, 4) is None else _number(node, 4, 0, "score_threshold"),
        limit=int(min(limit, scores[2])),
        centered=bool(node.attrs.get("center_point_box", 0)),
        rounds=options.nms_rounds,
    )


def _number(node: gs.Node, position: int, default: float, name: str) -> float:
    tensor = optional_input(node, position)
    if tensor is None:
        return default
    value = scalar(tensor)
    if value is None:
        raise NotStaticError(f"its {name} is computed at run time")
    return value


SURGERY = Surgery(row=12, name="NonMaxSuppression", thread="TensorRT #523, #795", matches=matches, apply=apply)
