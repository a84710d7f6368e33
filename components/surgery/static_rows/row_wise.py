"""Operators that treat every row by itself: what they make of padding is padding."""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.graphs import static_shape
from components.surgery.static_rows.values import NotStaticError, OpenShapeError, Rows, same
from components.surgery.static_rows.walk import Rule, Value, Walk, called

_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor"),
    *("HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal"),
    *("Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
    *("ThresholdedRelu", "Celu", "Gelu", "Cast", "BitwiseNot"),
)
_BROADCAST = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Mean", "Sum", "Where", "Clip", "PRelu"),
    *("And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift"),
)
_BATCHED = (
    *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "DepthToSpace", "SpaceToDepth", "Resize"),
    *("LRN", "GridSample"),
)
"""Operators whose first axis is a batch."""
_ALONG_AN_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "LayerNormalization": -1, "LpNormalization": -1}
"""Operators that mix the elements along an axis, and its default."""


def _unary(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    (x,) = inputs
    assert isinstance(x, Rows)
    keeps_places = node.op == "Identity" or (node.op == "Cast" and x.dtype.kind in "iu" and _to_integers(node))
    if not keeps_places:
        x = walk.spaces.plain(x)
    (made,) = walk.copy(node, [x.tensor])
    return [Rows(made, x.axis, x.space, x.index)]


def _to_integers(node: gs.Node) -> bool:
    import onnx

    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.attrs["to"])).kind in "iu"


def _broadcast(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    shapes = [None if value is None else _shape(walk, node, value) for value in inputs]
    rank = max(len(shape) for shape in shapes if shape is not None)
    found = [(value, rank - len(value.shape) + value.axis) for value in inputs if isinstance(value, Rows)]
    rows, axis = found[0]
    for other, position in found[1:]:
        if position != axis or not same(other.space, rows.space):
            raise NotStaticError(node, f"{called(node)} combines rows that are chosen in different ways")
    for value, shape in zip(inputs, shapes, strict=True):
        if shape is None or isinstance(value, Rows):
            continue
        place = axis - (rank - len(shape))
        if place >= 0 and shape[place] != 1:
            raise NotStaticError(
                node, f"{called(node)} combines a number of rows that depends on the data with a fixed one"
            )
    tensors = [walk.spaces.plain(value).tensor if isinstance(value, Rows) else walk.static(value) for value in inputs]
    (made,) = walk.copy(node, tensors)
    return [Rows(made, axis, rows.space)]


def _batched(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x = inputs[0]
    others = [value for value in inputs[1:] if isinstance(value, Rows)]
    first = x if isinstance(x, Rows) else others[0]
    if any(value.axis != 0 or not same(value.space, first.space) for value in (first, *others)):
        raise NotStaticError(node, f"{called(node)} reads rows elsewhere than along its batch axis")
    if not isinstance(x, Rows) or (others and node.op != "GridSample"):
        raise NotStaticError(node, f"{called(node)} has weights whose number depends on the data")
    tensors = [value.tensor if isinstance(value, Rows) else walk.static(value) for value in inputs]
    return [Rows(made, 0, x.space) for made in walk.copy(node, tensors)]


def _along_an_axis(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    x = inputs[0]
    if not isinstance(x, Rows) or any(isinstance(value, Rows) for value in inputs[1:]):
        raise NotStaticError(node, f"{called(node)} has weights whose number depends on the data")
    axis = int(node.attrs.get("axis", _ALONG_AN_AXIS[node.op])) % len(x.shape)
    mixed = axis <= x.axis if node.op == "LayerNormalization" else axis == x.axis
    if mixed:
        raise NotStaticError(node, f"{called(node)} mixes rows whose number depends on the data")
    made = walk.copy(node, [x.tensor, *(walk.static(value) for value in inputs[1:])])
    return [Rows(made[0], x.axis, x.space), *made[1:]]


def _mat_mul(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    a, b = inputs[:2]
    assert a is not None
    assert b is not None
    ranks = [len(_shape(walk, node, value)) for value in (a, b)]
    if isinstance(a, Rows) and isinstance(b, Rows):
        # A batch of matrices, one a row.
        if not same(a.space, b.space) or a.axis - ranks[0] != b.axis - ranks[1] or a.axis >= ranks[0] - 2:
            raise NotStaticError(node, f"{called(node)} multiplies rows with rows")
        rows, axis = a, max(ranks) - ranks[0] + a.axis
    elif isinstance(a, Rows):
        rows, axis = a, max(ranks) - ranks[0] + a.axis
        if a.axis == ranks[0] - 1:
            raise NotStaticError(node, f"{called(node)} sums over rows whose number depends on the data")
    else:
        assert isinstance(b, Rows)
        rows, axis = b, max(ranks) - ranks[1] + b.axis
        if b.axis == max(ranks[1] - 2, 0):
            raise NotStaticError(node, f"{called(node)} sums over rows whose number depends on the data")
    if min(ranks) < 2:
        raise NotStaticError(node, f"{called(node)} multiplies a vector")
    tensors = [value.tensor if isinstance(value, Rows) else walk.static(value) for value in (a, b)]
    (made,) = walk.copy(node, tensors)
    return [Rows(made, axis, rows.space)]


def _gemm(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
    a, *others = inputs
    if not isinstance(a, Rows) or a.axis != 0 or node.attrs.get("transA") or any(isinstance(v, Rows) for v in others):
        raise NotStaticError(node, f"{called(node)} reads rows elsewhere than along its first axis")
    (made,) = walk.copy(node, [a.tensor, *(walk.static(value) for value in others)])
    return [Rows(made, 0, a.space)]


def _shape(walk: Walk, node: gs.Node, value: Value) -> tuple[int, ...]:
    if isinstance(value, Rows):
        return value.shape
    tensor = walk.static(value)
    shape = None if tensor is None else static_shape(tensor)
    if tensor is None or shape is None:
        name = "" if tensor is None else tensor.name
        raise OpenShapeError(node, f"{called(node)} also reads {name!r}, whose shape is not fixed")
    return shape


def _where_there_are_rows(rule: Rule) -> Rule:
    """Without rows, such as with a size among the inputs, the node itself is static."""

    def whole(walk: Walk, node: gs.Node, inputs: Sequence[Value | None]) -> Sequence[Value]:
        if any(isinstance(value, Rows) for value in inputs):
            return rule(walk, node, inputs)
        return walk.copy(node, [walk.static(value) for value in inputs])

    return whole


RULES: dict[str, Rule] = {
    **{op: _where_there_are_rows(_unary) for op in _UNARY},
    **{op: _where_there_are_rows(_broadcast) for op in _BROADCAST},
    **{op: _where_there_are_rows(_batched) for op in _BATCHED},
    **{op: _where_there_are_rows(_along_an_axis) for op in _ALONG_AN_AXIS},
    "MatMul": _where_there_are_rows(_mat_mul),
    "Gemm": _where_there_are_rows(_gemm),
}
