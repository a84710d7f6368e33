"""What a Resize does to each axis, as a matrix that is found by running it, and cheaper or wider spread forms of that.

A Resize is linear in its input and works axis by axis, so each axis has a matrix [out, in]. Feeding an identity to the
operator in ONNX Runtime gives it, whatever the mode, the coordinates, the antialiasing or the rounding. Rows that pick
one pixel are a Gather, others a MatMul; where a plain Resize has the same matrices, it is that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.evaluate import EvaluationError, Model, model_of
from components.surgery.graphs import constant, numpy_dtype, optional_input, static_shape
from components.surgery.shape_probes import probe
from components.surgery.surgery import Change, label, refusal

_CHUNK = 2**22
"""Elements of the identity that are fed at a time."""
_MAX_MATRIX = 2**24
_SAME = 2e-6
"""Largest difference of weights that are the same but for the order of float operations."""
_PORTABLE = {"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"}
_AXES_OPSET = 18


Attributes = Mapping[str, Any]


class ResizeError(Exception):
    """Why a Resize cannot be taken apart."""


@dataclass(frozen=True)
class Span:
    """One axis that a Resize changes."""

    axis: int
    size: int
    out: int
    scale: np.float32
    """That coordinates are computed with; not always out / size."""
    asked: int | None
    """The size asked for, which a kept aspect ratio may make smaller or larger; None where a scale was given."""
    crop: tuple[float, float] | None = None
    """Start and end in 0..1, for tf_crop_and_resize."""


def spans(node: gs.Node, graph: gs.Graph) -> list[Span]:
    """The axes that a Resize changes.

    Raises:
        ResizeError: their sizes before or after are not fixed.
    """
    x = node.inputs[0]
    if x.shape is None:
        raise ResizeError("the shape of its input is not known")
    rank = len(x.shape)
    axes = [int(axis) % rank for axis in node.attrs.get("axes", range(rank))]
    crops = _crops(node, axes)
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    sized = optional_input(node, 3)
    given = sized if sized is not None else optional_input(node, 2)
    probed = probe(given, x, graph) if given is not None else None
    if probed is None or any(value.shape != (len(axes),) for _, value in probed):
        raise ResizeError("its size is computed at run time")
    asked = []
    for position, axis in enumerate(axes):
        values = [value[position] for _, value in probed]
        kept = [shape[axis] if sized is not None else 1 for shape, _ in probed]
        if values == kept and axis not in crops and policy == "stretch":
            continue
        size = x.shape[axis]
        if not isinstance(size, int | np.integer) or len(set(values)) > 1:
            raise ResizeError(f"dimension {axis} of its input or output is not fixed")
        asked.append((axis, int(size), values[0]))
    if sized is not None and policy != "stretch":
        return _with_aspect(asked, policy)
    return [_span(axis, size, value, crops.get(axis), sized=sized is not None) for axis, size, value in asked]


def _crops(node: gs.Node, axes: Sequence[int]) -> dict[int, tuple[float, float]]:
    if node.attrs.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        return {}
    roi = optional_input(node, 1)
    values = constant(roi) if roi is not None else None
    if values is None or values.shape != (2 * len(axes),):
        raise ResizeError("its region of interest is computed at run time")
    starts, ends = values[: len(axes)], values[len(axes) :]
    pairs = zip(axes, starts.tolist(), ends.tolist(), strict=True)
    return {axis: (start, end) for axis, start, end in pairs if (start, end) != (0, 1)}


def _span(axis: int, size: int, value: float, crop: tuple[float, float] | None, *, sized: bool) -> Span:
    if sized:
        return Span(axis, size, int(value), np.float32(value) / np.float32(size), int(value), crop)
    scale = np.float32(value)
    return Span(axis, size, math.floor(np.float32(size) * scale), scale, None, crop)


def _with_aspect(asked: Sequence[tuple[int, int, float]], policy: str) -> list[Span]:
    """One scale for all axes, rounded half up as the standard and ONNX Runtime do."""
    choose = min if policy == "not_larger" else max
    scale = choose(np.float32(out) / np.float32(size) for _, size, out in asked)
    return [
        Span(axis, size, math.floor(scale * np.float32(size) + np.float32(0.5)), scale, int(out))
        for axis, size, out in asked
    ]


def matrices(attributes: Attributes, found: Sequence[Span], graph: gs.Graph) -> list[np.ndarray]:
    """The matrix [out, in] of each span, for a Resize of floats.

    Raises:
        ResizeError: ONNX Runtime does not run the operator in this form.
    """
    for span in found:
        if span.size * span.out > _MAX_MATRIX:
            raise ResizeError(f"dimension {span.axis} is too large: {span.size} to {span.out}")
        if not span.size or not span.out:
            raise ResizeError(f"dimension {span.axis} is empty")
    try:
        return [_matrix(attributes, span, found, graph) for span in found]
    except EvaluationError as error:
        raise ResizeError(f"ONNX Runtime does not run it: {error}") from error


def outside(attributes: Attributes, span: Span, graph: gs.Graph) -> np.ndarray:
    """Bool [out]: which pixels of a cropped axis are outside of the image, and are the extrapolation value."""
    inverted = {**_probed(attributes, graph), "extrapolation_value": 1.0}
    x = np.zeros((1, 1, span.size, 1), np.float32)
    return np.asarray(_model(inverted, x.shape, span, graph)({"x": x})["y"][0, 0, :, 0] > 0.5)


def _matrix(attributes: Attributes, span: Span, found: Sequence[Span], graph: gs.Graph) -> np.ndarray:
    """Feeds an identity along the span; the channels count its rows."""
    kept = attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    other = _decides(span, found) if kept else None
    step = max(1, _CHUNK // (span.size * (other[0] if other else 1)))
    probed = {**_probed(attributes, graph), "extrapolation_value": 0.0}
    parts, model = [], None
    for first in range(0, span.size, step):
        rows = np.eye(span.size, dtype=np.float32)[first : first + step]
        x = np.repeat(rows[None, :, :, None], other[0] if other else 1, 3)
        if model is None or len(rows) != step:
            model = _model(probed, x.shape, span, graph, other)
        parts.append(model({"x": x})["y"][0, :, :, 0])
    return np.ascontiguousarray(np.concatenate(parts).T)


def _decides(span: Span, found: Sequence[Span]) -> tuple[int, int] | None:
    """Size, and size asked for, of an axis that has the scale which the policy chose; None: the span itself has it.

    Only the ratio matters, so the axis is as short as the ratio allows.
    """
    for other in (span, *found):
        if other.asked is not None and np.float32(other.asked) / np.float32(other.size) == span.scale:
            common = math.gcd(other.asked, other.size)
            return None if other is span else (other.size // common, other.asked // common)
    raise ResizeError("no axis has the scale that its policy chooses")


def _probed(attributes: Attributes, graph: gs.Graph) -> dict[str, Any]:
    left = {"axes"} if graph.opset >= _AXES_OPSET else {"axes", "antialias", "keep_aspect_ratio_policy"}
    return {name: value for name, value in attributes.items() if name not in left}


def _model(
    attributes: Attributes, shape: Sequence[int], span: Span, graph: gs.Graph, other: tuple[int, int] | None = None
) -> Model:
    """A Resize of [1, K, size, other size] along the third axis, and along the fourth if it decides the scale."""
    start, end = span.crop or (0.0, 1.0)
    constants = {"roi": np.array([0, 0, start, 0, 1, 1, end, 1], np.float32)}
    if span.asked is None:
        constants["scales"] = np.array([1, 1, span.scale, 1], np.float32)
    else:
        constants["sizes"] = np.array([1, shape[1], span.asked, other[1] if other else 1], np.int64)
        if "keep_aspect_ratio_policy" in attributes:
            # The policy takes in the axes that are named.
            axes = [2, 3] if other else [2]
            attributes = {**attributes, "axes": axes}
            constants["sizes"] = constants["sizes"][axes]
    names = [name if name in constants else "" for name in ("roi", "scales", "sizes")]
    node = onnx.helper.make_node("Resize", ["x", *names], ["y"], **attributes)
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    model = model_of([node], [given], ["y"], graph)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return Model(model)


def plain(node: gs.Node, found: Sequence[Span], wanted: Sequence[np.ndarray], graph: gs.Graph) -> dict[str, Any] | None:
    """Attributes of a Resize to the sizes of the spans that every parser takes and that has these matrices, or None."""
    mode = node.attrs.get("mode", "nearest")
    coordinates = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    for candidate in dict.fromkeys([coordinates, "half_pixel", "align_corners"]):
        if candidate not in _PORTABLE:
            continue
        attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": candidate}
        if mode == "nearest":
            attributes["nearest_mode"] = node.attrs.get("nearest_mode", "round_prefer_floor")
        if mode == "cubic":
            attributes |= {
                name: node.attrs[name] for name in ("cubic_coeff_a", "exclude_outside") if name in node.attrs
            }
        stretched = [Span(s.axis, s.size, s.out, np.float32(s.out) / np.float32(s.size), s.out) for s in found]
        try:
            have = matrices(attributes, stretched, graph)
        except ResizeError:
            continue
        if all(np.abs(a - b).max() <= _SAME for a, b in zip(have, wanted, strict=True)):
            return attributes
    return None


def resize(emit: Emitter, x: gs.Tensor, outs: Mapping[int, int], attributes: Attributes) -> gs.Variable:
    """A Resize of some axes to fixed sizes; the other axes may be open."""
    shape = static_shape(x)
    nothing = gs.Variable.empty()
    if shape is not None:
        sizes: gs.Tensor = emit.constant(np.array([outs.get(a, size) for a, size in enumerate(shape)], np.int64))
    else:
        # Parsers do not take the attribute `axes` where an axis is open.
        whole = emit("Shape", x, dtype=np.int64)
        parts = [
            np.array([outs[axis]], np.int64) if axis in outs else emit.column(whole, axis, 0, np.int64)
            for axis in range(len(x.shape))
        ]
        sizes = emit("Concat", *parts, dtype=np.int64, axis=0)
    return emit("Resize", x, nothing, nothing, sizes, dtype=x.dtype, **attributes)


def multiply(emit: Emitter, x: gs.Tensor, found: Sequence[Span], wanted: Sequence[np.ndarray]) -> tuple[gs.Tensor, str]:
    """The product of a tensor with a matrix along each span.

    Returns:
        The result, and the operators in words.
    """
    rank, dtype = len(x.shape), numpy_dtype(x) or np.dtype(np.float32)
    ops = []
    # What shrinks most goes first, so that the later ones have less to do.
    for span, matrix in sorted(zip(found, wanted, strict=True), key=lambda pair: pair[0].out / pair[0].size):
        if _picks(matrix):
            index = matrix.argmax(1).astype(np.int64)
            x = emit("Gather", x, index, dtype=dtype, axis=span.axis)
            ops.append("Gather")
            continue
        ops.append("MatMul")
        weights = matrix.astype(dtype)
        if span.axis == rank - 2:
            x = emit("MatMul", weights, x, dtype=dtype)
            continue
        order = [axis for axis in range(rank) if axis != span.axis] + [span.axis]
        last = span.axis == rank - 1
        moved = x if last else emit("Transpose", x, dtype=dtype, perm=order)
        x = emit("MatMul", moved, weights.T, dtype=dtype)
        if not last:
            x = emit("Transpose", x, dtype=dtype, perm=np.argsort(order).tolist())
    return x, " and ".join(f"{ops.count(op)} {op}" for op in dict.fromkeys(ops))


def _picks(matrix: np.ndarray) -> bool:
    """Whether each row takes one pixel as it is."""
    return bool(((matrix == 1).sum(1) == 1).all() and ((matrix != 0).sum(1) == 1).all())


def restate(graph: gs.Graph, node: gs.Node, why: str, *, keep: bool = True) -> Change:
    """Replaces a Resize of fixed sizes by operators that every parser takes; or says why not.

    Args:
        graph: it is changed.
        node: a Resize.
        why: it needs replacing.
        keep: whether a Resize with plain attributes will do.
    """
    x, result, name = node.inputs[0], node.outputs[0], label(node)
    if numpy_dtype(x) not in (np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.float64)) and (
        node.attrs.get("mode", "nearest") != "nearest"
    ):
        return refusal(node, f"{why}; its input is {x.dtype}", "resize floats: cast the input before the Resize")
    try:
        found = spans(node, graph)
        wanted = matrices(node.attrs, found, graph)
        hidden = {span: outside(node.attrs, span, graph) for span in found if span.crop is not None}
    except ResizeError as error:
        way_out = "fix the input's sides (--input-shape, target.input_shape), or resize with the default attributes"
        return refusal(node, f"{why}; {error}", way_out)
    emit = Emitter(graph, f"{node.name or result.name}/resize")
    beyond = any(mask.any() for mask in hidden.values())
    simple = None if beyond or not keep else plain(node, found, wanted, graph)
    if not found:
        made, what = emit("Identity", x, dtype=x.dtype), "nothing to do: the size stays"
    elif simple is not None:
        made = resize(emit, x, {span.axis: span.out for span in found}, simple)
        what = f"a plain {simple['mode']} Resize, which has the same weights here"
    else:
        if node.attrs.get("mode", "nearest") == "nearest":
            for span, matrix in zip(found, wanted, strict=True):
                matrix[hidden.get(span, []), 0] = 1  # any pixel will do where the Where overwrites it
        product, ops = multiply(emit, x, found, wanted)
        if beyond:
            product = _extrapolate(emit, product, node, hidden)
            ops += " and a Where for what is outside"
        made, what = product, f"{ops}, with weights found by running the Resize on an identity"
    emit.finish(made, result)
    return Change(name, why, what, inputs=(x.name,), outputs=(result.name,))


def _extrapolate(emit: Emitter, x: gs.Tensor, node: gs.Node, hidden: Mapping[Span, np.ndarray]) -> gs.Tensor:
    """Writes the extrapolation value where a pixel is outside along any axis."""
    rank = len(node.inputs[0].shape)
    mask = np.zeros([1] * rank, bool)
    for span, beyond in hidden.items():
        shape = [1] * rank
        shape[span.axis] = span.out
        mask = mask | beyond.reshape(shape)
    dtype = numpy_dtype(node.inputs[0]) or np.dtype(np.float32)
    value = np.array(node.attrs.get("extrapolation_value", 0.0), dtype)
    return emit("Where", mask, value, x, dtype=dtype)
