"""Row 30: masks of -1e9, -3.4e38 or -inf, which FP16 cannot hold.

Attention adds or selects such a number where a position shall get no weight. In FP16 it becomes -inf, two of them or a
fully masked row become not-a-number, and TensorRT warns of weights out of range. Any number that no score comes near
does the same. Where every way from the constant leads into a Softmax, it is cut to FP16's range: to -65504 where it is
selected, and to half of that where it is added, so that a sum with a score or with a second mask stays in the range.

A row in which *everything* is masked has no meaning, and its weights do change where the mask is added (-1e9 drowns the
scores, -32752 does not). The report says so; where an input of the proof meets such a row, the change is taken back.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.graphs import numpy_dtype
from components.surgery.surgery import Change, Options, Surgery, label
from components.surgery.ways import Way, way

_LARGEST = 65504.0
_HALF_RANGE = _LARGEST / 2
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Sum"})
_PASSES = _ARITHMETIC | {
    *("Where", "Max", "Clip", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Transpose", "Slice", "Concat"),
    *("Gather", "Tile", "Trilu", "Cast", "Flatten", "ConstantOfShape", "ScatterND"),
}
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)


def matches(graph: gs.Graph) -> bool:
    """Whether a constant on the way into a Softmax is beyond FP16's range."""
    return any(node.op == "Softmax" for node in graph.nodes) and next(_found(graph), None) is not None


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Cuts the constants to the range."""
    changes = []
    made: dict[tuple[int, float], gs.Constant] = {}
    for node, place, route in list(_found(graph)):
        if label(node) in options.skip:
            continue
        limit = _HALF_RANGE if any(other.op in _ARITHMETIC for other in route.nodes.values()) else _LARGEST
        given = node.attrs["value"] if place is None else node.inputs[place]
        key = (id(given), limit)
        if key not in made:
            cut = np.asarray(np.clip(given.values, -limit, limit), given.values.dtype)
            made[key] = gs.Constant(f"{given.name or label(node)}/within_fp16_{limit:g}", cut)
        flat = given.values.reshape(-1)
        worst = float(flat[np.argmax(np.abs(flat))])
        if place is None:
            node.attrs["value"] = made[key]
        else:
            node.inputs[place] = made[key]
        why = f"{worst:g} is beyond FP16's range"
        what = (
            f"{np.copysign(limit, worst):g}, which leaves no weight after the Softmax either; only a row in which "
            "everything is masked gets other weights"
        )
        changes.append(Change(label(node), why, what, inputs=route.inputs, outputs=route.outputs))
    return changes


def _found(graph: gs.Graph) -> Iterator[tuple[gs.Node, int | None, Way]]:
    """Node, input (None: its attribute) and way of each constant that is too large."""
    kept = {id(tensor) for tensor in graph.outputs}
    for node in graph.nodes:
        if node.op not in _PASSES or not node.outputs:
            continue
        places: list[int | None] = [
            place for place, tensor in enumerate(node.inputs) if isinstance(tensor, gs.Constant)
        ]
        if node.op == "ConstantOfShape":
            places = [None] if isinstance(node.attrs.get("value"), gs.Constant) else []
        places = [place for place in places if _is_float(node, place) and _beyond(node, place)]
        route = way(node, kept, _passes, _ends) if places else None
        if route is not None:
            yield from ((node, place, route) for place in places)


def _is_float(node: gs.Node, place: int | None) -> bool:
    tensor = node.attrs["value"] if place is None else node.inputs[place]
    dtype = numpy_dtype(tensor)
    return dtype is not None and dtype.kind == "f"


def _beyond(node: gs.Node, place: int | None) -> bool:
    values = (node.attrs["value"] if place is None else node.inputs[place]).values
    with np.errstate(invalid="ignore"):
        return bool((np.abs(values) > _LARGEST).any()) and not np.isnan(values).any()


def _passes(node: gs.Node) -> bool:
    return node.op in _PASSES and (node.op != "Cast" or node.attrs.get("to") in _FLOATS)


def _ends(node: gs.Node, tensor: gs.Tensor) -> bool:  # noqa: ARG001
    return bool(node.op == "Softmax")


SURGERY = Surgery(
    row=30,
    name="mask constants",
    thread="TensorRT: attention masks beyond FP16",
    matches=matches,
    apply=apply,
)
