"""Row 29: a layer normalization as ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div (exporters before opset 17).

In FP16 the squares overflow as soon as a value is 256 away from the mean, and the result is 0 or not a number. One
LayerNormalization node is what TensorRT has a kernel for; where the graph computes in FP16 it gets casts around, so
that it computes in FP32 even where a runtime would not. Recognized are torch's and TensorFlow's spellings, with and
without scale and bias: squares by Pow or Mul, division by Div or Reciprocal, and ``x * k + (bias - mean * k)``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input, scalar
from components.surgery.surgery import TOLERANCE, Change, Options, Surgery, label

_OPSET = 17
_HALF = np.dtype(np.float16)
_HALF_TOLERANCE = 5e-3
"""The old nodes round each step to FP16, the new ones only the result."""


@dataclass
class _Norm:
    """One normalization of `x` over its last axes."""

    root: gs.Node
    """The square root in it."""
    x: gs.Tensor
    mean: gs.Tensor
    axes: tuple[int, ...]
    """From the end: -1, or -2 and -1, ..."""
    epsilon: float
    result: gs.Tensor
    kept: frozenset[int]
    """Outputs of the graph by id: nothing is taken in beyond them."""
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None


def matches(graph: gs.Graph) -> bool:
    """Whether a layer normalization is spelled out."""
    return graph.opset >= _OPSET - 1 and next(_found(graph), None) is not None


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Writes LayerNormalization nodes."""
    changes = []
    for norm in list(_found(graph)):
        if label(norm.root) in options.skip:
            continue
        if graph.opset < _OPSET:
            _raise_opset(graph)  # opset 17 only added operators
        changes.append(_rewrite(graph, norm))
    return changes


def _raise_opset(graph: gs.Graph) -> None:
    graph.opset = _OPSET
    others = [opset for opset in graph.import_domains or [] if opset.domain not in ("", "ai.onnx")]
    graph.import_domains = [onnx.helper.make_opsetid("", _OPSET), *others]


def _found(graph: gs.Graph) -> Iterator[_Norm]:
    kept = frozenset(id(tensor) for tensor in graph.outputs)
    for node in graph.nodes:
        if node.op == "Sqrt" or (node.op == "Pow" and scalar(node.inputs[1]) in (0.5, -0.5)):
            norm = _norm_at(node, kept)
            if norm is not None and _affordable(norm):
                yield norm


def _affordable(norm: _Norm) -> bool:
    """Whether scale and bias can be written with the shape that LayerNormalization wants."""
    shape = _normalized_shape(norm)
    if shape is None:
        return False
    try:
        for values in (norm.scale, norm.bias):
            if values is not None:
                np.broadcast_to(_trimmed(values, len(shape)), shape)
    except ValueError:
        return False
    return True


def _normalized_shape(norm: _Norm) -> tuple[int, ...] | None:
    """Sizes of the normalized axes; a scale of their full shape says them where the tensor's are unknown."""
    known = norm.x.shape
    sizes = list(known[-len(norm.axes) :]) if known is not None else []
    if len(sizes) == len(norm.axes) and all(isinstance(size, int) and size > 0 for size in sizes):
        return tuple(sizes)
    return None


def _trimmed(values: np.ndarray, rank: int) -> np.ndarray:
    """Without the leading axes of size 1."""
    while values.ndim > rank and values.shape[0] == 1:
        values = values[0]
    return values


def _norm_at(root: gs.Node, kept: frozenset[int]) -> _Norm | None:
    added = _maker(root.inputs[0], "Add")
    if added is None:
        return None
    for variance, epsilon in (added.inputs, added.inputs[::-1]):
        value, mean_of_squares = scalar(epsilon), _maker(variance, "ReduceMean")
        centred = _squared(mean_of_squares.inputs[0]) if mean_of_squares is not None else None
        if value is None or mean_of_squares is None or centred is None:
            continue
        sub = _maker(centred, "Sub")
        mean = _maker(sub.inputs[1], "ReduceMean") if sub is not None else None
        if sub is None or mean is None or mean.inputs[0] is not sub.inputs[0]:
            continue
        axes = _last_axes(mean, sub.inputs[0])
        if axes is None or axes != _last_axes(mean_of_squares, sub.inputs[0]):
            continue
        norm = _Norm(root, sub.inputs[0], mean.outputs[0], axes, float(value), root.outputs[0], kept)
        return norm if _follow(norm) else None
    return None


def _maker(tensor: gs.Tensor, op: str) -> gs.Node | None:
    node = tensor.inputs[0] if tensor.inputs else None
    return node if node is not None and node.op == op else None


def _squared(tensor: gs.Tensor) -> gs.Tensor | None:
    """What the tensor is the square of."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None:
        return None
    if node.op == "Pow" and scalar(node.inputs[1]) == 2:
        return node.inputs[0]
    same = node.op == "Mul" and (node.inputs[0] is node.inputs[1] or _same_difference(*node.inputs))
    return node.inputs[0] if same else None


def _same_difference(a: gs.Tensor, b: gs.Tensor) -> bool:
    """Whether both are ``x - mean`` of the same tensors: exporters write it twice."""
    one, other = _maker(a, "Sub"), _maker(b, "Sub")
    if one is None or other is None:
        return False
    return all(left is right for left, right in zip(one.inputs, other.inputs, strict=True))


def _last_axes(node: gs.Node, x: gs.Tensor) -> tuple[int, ...] | None:
    """The axes of a ReduceMean that keeps dimensions, from the end; None if they are not the last ones."""
    listed = node.attrs.get("axes")
    if listed is None:
        given = optional_input(node, 1)
        values = None if given is None else constant(given)
        listed = None if values is None else values.reshape(-1).tolist()
    if not listed or not node.attrs.get("keepdims", 1):
        return None
    if any(axis >= 0 for axis in listed):
        if x.shape is None:
            return None
        listed = [axis - len(x.shape) if axis >= 0 else axis for axis in listed]
    axes = tuple(sorted(int(axis) for axis in listed))
    return axes if axes == tuple(range(-len(axes), 0)) else None


def _follow(norm: _Norm) -> bool:
    """Finds the end of the pattern from the root on."""
    inverse = norm.root.op == "Pow" and scalar(norm.root.inputs[1]) == -0.5
    starts = [(norm.root.outputs[0], inverse)]
    for reader in norm.root.outputs[0].outputs:
        turned = reader.op == "Reciprocal" or (reader.op == "Div" and scalar(reader.inputs[0]) == 1)
        if turned and not inverse:
            starts.append((reader.outputs[0], True))
    for tensor, inverted in starts:
        for reader in tensor.outputs:
            if (
                not inverted
                and reader.op == "Div"
                and reader.inputs[1] is tensor
                and _is_centred(norm, reader.inputs[0])
            ):
                norm.result = reader.outputs[0]
                _take_affine(norm)
                return True
            if inverted and reader.op == "Mul":
                other = _other(reader, tensor)
                if _is_centred(norm, other):
                    norm.result = reader.outputs[0]
                    _take_affine(norm)
                    return True
                if constant(other) is not None and _folded(norm, reader.outputs[0], constant(other)):
                    return True
        if inverted and _folded(norm, tensor, None):
            return True
    return False


def _other(node: gs.Node, tensor: gs.Tensor) -> gs.Tensor:
    return node.inputs[1] if node.inputs[0] is tensor else node.inputs[0]


def _is_centred(norm: _Norm, tensor: gs.Tensor) -> bool:
    sub = _maker(tensor, "Sub")
    return sub is not None and sub.inputs[0] is norm.x and sub.inputs[1] is norm.mean


def _take_affine(norm: _Norm) -> None:
    """Takes a constant scale and then a constant bias in, where nothing else reads what is between."""
    for op in ("Mul", "Add"):
        readers = norm.result.outputs
        if len(readers) != 1 or readers[0].op != op or id(norm.result) in norm.kept:
            continue
        values = constant(_other(readers[0], norm.result))
        if values is None or values.ndim > len(norm.axes) + 8:
            continue
        if op == "Mul":
            norm.scale = values
        else:
            norm.bias = values
        norm.result = readers[0].outputs[0]


def _folded(norm: _Norm, k: gs.Tensor, scale: np.ndarray | None) -> bool:
    """TensorFlow's ``x * k + (bias - mean * k)``."""
    products = [(reader, _other(reader, k)) for reader in k.outputs if reader.op == "Mul"]
    scaled = next((reader.outputs[0] for reader, other in products if other is norm.x), None)
    moved = next((reader.outputs[0] for reader, other in products if other is norm.mean), None)
    if scaled is None or moved is None:
        return False
    for reader in scaled.outputs:
        if reader.op == "Sub" and reader.inputs[0] is scaled and reader.inputs[1] is moved:
            norm.scale, norm.result = scale, reader.outputs[0]
            return True
        offset = _maker(_other(reader, scaled), "Sub") if reader.op == "Add" else None
        if offset is None or offset.inputs[1] is not moved:
            continue
        bias = constant(offset.inputs[0])
        if bias is not None:
            norm.scale, norm.bias, norm.result = scale, bias, reader.outputs[0]
            return True
    return False


def _rewrite(graph: gs.Graph, norm: _Norm) -> Change:
    emit = Emitter(graph, f"{norm.root.name or norm.root.outputs[0].name}/layer_normalization")
    shape = _normalized_shape(norm)
    assert shape is not None
    half = numpy_dtype(norm.x) == _HALF
    dtype = np.dtype(np.float32) if half else numpy_dtype(norm.x) or np.dtype(np.float32)
    scale = np.ones((), dtype) if norm.scale is None else norm.scale
    given = [np.broadcast_to(_trimmed(scale, len(shape)), shape).astype(dtype)]
    if norm.bias is not None:
        given.append(np.broadcast_to(_trimmed(norm.bias, len(shape)), shape).astype(dtype))
    x = emit.cast(norm.x, dtype) if half else norm.x
    attributes = {"axis": -len(norm.axes), "epsilon": norm.epsilon}
    y = emit("LayerNormalization", x, *given, dtype=dtype, name="LayerNormalization", **attributes)
    emit.finish(emit.cast(y, _HALF) if half else y, norm.result)
    why = "its squares overflow in FP16 and it takes several kernels"
    what = "one LayerNormalization"
    if half:
        what += ", in FP32 between casts (5e-3 accepted: FP16 rounds each old step)"
    return Change(
        label(norm.root),
        why,
        what,
        inputs=(norm.x.name,),
        outputs=(norm.result.name,),
        tolerance=_HALF_TOLERANCE if half else TOLERANCE,
    )


SURGERY = Surgery(
    row=29,
    name="layer normalization",
    thread="TensorRT: LayerNorm in FP16 overflows",
    matches=matches,
    apply=apply,
)
