"""Row 12: NonMaxSuppression (TensorRT #523, #795): its number of boxes depends on the data.

The suppression becomes a mask over all boxes, computed by static operators, and everything that follows it is made
static with it (`static_rows`), whatever else depends on data there: boolean indices, TopK of a run-time size, RoiAlign,
an If that asks whether there is a box. Boxes that leave the graph get a fixed number, the real ones first.
"""

from collections.abc import Collection, Sequence

import onnx
import onnx_graphsurgeon as gs

from components.surgery.static_rows.rewrite import make_static
from components.surgery.surgeries.greedy_nms import KEEP, KEEP_BEFORE
from components.surgery.surgery import Change, Options, Surgery

_WHY = "the number of boxes depends on the data, which no plugin-free TensorRT can build"
_WAY_OUT = (
    "export the detector with fixed-size outputs (a keep-mask and scores of -1), or run this model on a CPU runtime"
)


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


SURGERY = Surgery(row=12, name="NonMaxSuppression", thread="TensorRT #523, #795", matches=matches, apply=apply)
