"""Row 12: NonMaxSuppression (TensorRT #523, #795): its number of boxes depends on the data.

The suppression becomes a mask over all boxes, computed by static operators, and everything that follows it is made
static with it (`static_rows`), whatever else depends on data there: boolean indices, TopK of a run-time size, RoiAlign,
an If that asks whether there is a box. Boxes that leave the graph get a fixed number, the real ones first.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.static_rows.rewrite import make_static
from components.surgery.surgeries.greedy_nms import CANDIDATES, KEEP, KEEP_BEFORE
from components.surgery.surgery import Change, Options, Surgery

_WHY = "the number of boxes depends on the data, which no plugin-free TensorRT can build"
_WAY_OUT = (
    "export the detector with fixed-size outputs (a keep-mask and scores of -1), or run this model on a CPU runtime"
)

_ATTRIBUTES: dict[str, dict[str, Any]] = {"Cast": {"to": int(onnx.TensorProto.FLOAT)}, "ReduceSum": {"keepdims": 0}}


def matches(graph: gs.Graph) -> bool:
    """Whether there is a NonMaxSuppression, here or in a branch."""
    return any(_is_there(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each, with all that follows it."""
    return make_static(graph, options, _has_suppression, _WHY, _WAY_OUT)


def _is_there(node: gs.Node) -> bool:
    graphs = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
    return bool(node.op == "NonMaxSuppression" or any(_is_there(inner) for graph in graphs for inner in graph.nodes))


def _has_suppression(sources: Collection[str]) -> bool:
    return "NonMaxSuppression" in sources


def fixed_point_probe(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with outputs that are 0 where a suppression that this surgery wrote was exact for an input.

    ``<name>/unsettled``, a float scalar for each: how many boxes its last round changed; 0 proves that the rounds were
    enough and the result is greedy NMS. ``<name>/left_out`` where there are too many candidates for one matrix: how
    many boxes were left out, which matters only if fewer were kept than are wanted.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = {node.name for node in model.graph.node}
    for node in model.graph.node:
        prefix, _, last = node.name.rpartition("/")
        before = f"{prefix}/{KEEP_BEFORE}"
        if last == KEEP and before in names:
            _add(probe, prefix, "unsettled", [("Sub", [node.output[0], f"{before}:0"]), ("Abs", [])])
        elif last == CANDIDATES and node.op_type == "TopK":
            count, padding = f"{prefix}/size", f"{prefix}/padding"
            tensors = [onnx.helper.make_tensor(padding, onnx.TensorProto.FLOAT, [], [float(np.finfo(np.float32).min)])]
            probe.graph.initializer.extend(tensors)
            probe.graph.node.append(onnx.helper.make_node("Size", [node.output[0]], [count]))
            probe.graph.node.append(onnx.helper.make_node("Cast", [count], [f"{count}_float"], to=1))
            real = [("Greater", [node.input[0], padding]), ("Cast", []), ("ReduceSum", [])]
            _add(probe, prefix, "left_out", [*real, ("Sub", [f"{count}_float"]), ("Relu", [])])
    return probe


def _add(probe: onnx.ModelProto, prefix: str, name: str, steps: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Adds an output: the sum of what the steps make, each of the one before and of other tensors."""
    last: list[str] = []
    for position, (op, others) in enumerate([*steps, ("ReduceSum", [])]):
        made = f"{prefix}/{name}" if position == len(steps) else f"{prefix}/{name}_{position}"
        attributes = _ATTRIBUTES.get(op, {})
        probe.graph.node.append(onnx.helper.make_node(op, [*last, *others], [made], name=made, **attributes))
        last = [made]
    probe.graph.output.append(onnx.helper.make_tensor_value_info(last[0], onnx.TensorProto.FLOAT, []))


SURGERY = Surgery(row=12, name="NonMaxSuppression", thread="TensorRT #523, #795", matches=matches, apply=apply)
