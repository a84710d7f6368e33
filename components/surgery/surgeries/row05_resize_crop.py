"""Row 5: Resize with tf_crop_and_resize, and the other coordinates that no parser takes.

A crop from pixel to pixel is a Slice and a Resize with aligned corners. A crop that begins or ends between pixels, or
reaches out of the image, has constant weights (`resizing`); what is outside is the extrapolation value. With a region
that is only known at run time the weights are computed from it: max(0, 1 - distance) for linear.

half_pixel_symmetric and tf_half_pixel_for_nn, which converters from TensorFlow write, are refused just so and are
restated just so.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.resizing import ResizeError, Span, matrices, resize, restate, spans
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_CROP = "tf_crop_and_resize"
_TENSORFLOW = "tf_half_pixel_for_nn"
"""TensorRT takes it with scales and not with sizes."""
_SAME = 1e-5
"""Largest difference of weights: a region is not exact in float32."""
_EXACT = 1e-4
"""How far from a pixel, in pixels, a crop may begin to be a Slice; its weights are compared after all."""


def matches(graph: gs.Graph) -> bool:
    """Whether there is such a Resize."""
    return any(_wanted(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose sizes are fixed."""
    return [_replace(graph, node) for node in list(graph.nodes) if _wanted(node) and label(node) not in options.skip]


def _wanted(node: gs.Node) -> bool:
    if node.op != "Resize":
        return False
    mode = node.attrs.get("coordinate_transformation_mode")
    return (
        mode == _CROP or mode == "half_pixel_symmetric" or (mode == _TENSORFLOW and optional_input(node, 3) is not None)
    )


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    mode = node.attrs["coordinate_transformation_mode"]
    why = f"TensorRT has no coordinates {mode!r}"
    if mode == _CROP:
        roi = optional_input(node, 1)
        if roi is not None and constant(roi) is None:
            return _at_run_time(graph, node, roi, why)
        sliced = _as_slice(graph, node, why)
        if sliced is not None:
            return sliced
    return restate(graph, node, why)


def _as_slice(graph: gs.Graph, node: gs.Node, why: str) -> Change | None:
    """Slice and Resize, where the crop begins and ends on pixels of the image."""
    try:
        found = spans(node, graph)
        wanted = matrices(node.attrs, found, graph)
    except ResizeError:
        return None
    cuts, plain = {}, []
    for span in found:
        first, last = (place * (span.size - 1) for place in span.crop or (0.0, 1.0))
        start, end = round(first), round(last)
        if max(abs(first - start), abs(last - end)) > _EXACT or not 0 <= start <= end < span.size:
            return None
        cuts[span.axis] = (start, end + 1)
        size = end + 1 - start
        plain.append(Span(span.axis, size, span.out, np.float32(span.out) / np.float32(size), span.out))
    attributes = {"mode": node.attrs.get("mode", "nearest"), "coordinate_transformation_mode": "align_corners"}
    names = ("nearest_mode", "cubic_coeff_a", "exclude_outside")
    attributes |= {name: node.attrs[name] for name in names if name in node.attrs}
    try:
        have = matrices(attributes, plain, graph)
    except ResizeError:
        return None
    for span, matrix, small in zip(found, wanted, have, strict=True):
        start, end = cuts[span.axis]
        spread = np.zeros_like(matrix)
        spread[:, start:end] = small
        if np.abs(spread - matrix).max() > _SAME:
            return None
    x, result, name = node.inputs[0], node.outputs[0], label(node)
    emit = Emitter(graph, f"{node.name or result.name}/crop")
    dtype = numpy_dtype(x) or np.dtype(np.float32)
    bounds = [[cut[0] for cut in cuts.values()], [cut[1] for cut in cuts.values()], list(cuts)]
    cropped = emit("Slice", x, *(np.array(bound, np.int64) for bound in bounds), dtype=dtype)
    cropped.shape = [cuts[axis][1] - cuts[axis][0] if axis in cuts else size for axis, size in enumerate(x.shape)]
    made = resize(emit, cropped, {span.axis: span.out for span in found}, attributes)
    emit.finish(made, result)
    what = "a Slice of the region and a Resize with aligned corners"
    return Change(name, why, what, inputs=(x.name,), outputs=(result.name,))


def _at_run_time(graph: gs.Graph, node: gs.Node, roi: gs.Tensor, why: str) -> Change:
    """Weights computed from the region."""
    x, result, name = node.inputs[0], node.outputs[0], label(node)
    mode = node.attrs.get("mode", "nearest")
    if mode != "linear":
        return refusal(node, f"{why}; the region of a {mode} crop is computed at run time", "use the mode linear")
    rank = len(x.shape or [])
    axes = [int(axis) % rank for axis in node.attrs.get("axes", range(rank))]
    # Any region will do to find the sizes; batch and channels are not cropped.
    half = np.array([0] * len(axes) + [0.5 if axis > 1 else 1 for axis in axes], np.float32)
    fixed = gs.Node("Resize", attrs=node.attrs, inputs=[x, gs.Constant("half", half), *node.inputs[2:]])
    try:
        found = spans(fixed, graph)
    except ResizeError as error:
        return refusal(node, f"{why}; {error}", "fix the input's height and width (--input-shape, target.input_shape)")
    finally:
        fixed.inputs.clear()
    emit = Emitter(graph, f"{node.name or result.name}/crop")
    made: gs.Tensor = x
    beyond = None
    for span in found:
        weights, hidden = _weights(emit, roi, axes.index(span.axis), len(axes), span)
        made = _product(emit, made, weights, span.axis, rank)
        shape = [1] * rank
        shape[span.axis] = span.out
        hidden = emit.reshape(hidden, shape, bool)
        beyond = hidden if beyond is None else emit("Or", beyond, hidden, dtype=bool)
    if beyond is not None:
        value = np.array(node.attrs.get("extrapolation_value", 0.0), np.float32)
        made = emit("Where", beyond, value, made)
    emit.finish(made, result)
    what = "MatMuls with weights computed from the region, and a Where for what is outside"
    return Change(name, why, what, inputs=(x.name, roi.name), outputs=(result.name,))


def _weights(emit: Emitter, roi: gs.Tensor, position: int, count: int, span: Span) -> tuple[gs.Variable, gs.Variable]:
    """Weights [out, in] and bool [out, 1]: which pixels are outside."""
    start, end = emit.column(roi, position), emit.column(roi, position + count)
    last = np.array(span.size - 1, np.float32)
    if span.out > 1:
        steps = np.arange(span.out, dtype=np.float32)
        width = emit("Div", emit("Mul", emit("Sub", end, start), last), np.array(span.out - 1, np.float32))
        at = emit("Add", emit("Mul", start, last), emit("Mul", steps, width))
    else:
        at = emit("Mul", emit("Mul", emit("Add", start, end), np.array(0.5, np.float32)), last)
    at = emit.reshape(at, (span.out, 1))
    low, high = emit("Less", at, np.array(0, np.float32), dtype=bool), emit("Greater", at, last, dtype=bool)
    distance = emit("Abs", emit("Sub", at, np.arange(span.size, dtype=np.float32).reshape(1, -1)))
    weights = emit("Max", emit("Sub", np.array(1, np.float32), distance), np.array(0, np.float32))
    return weights, emit("Or", low, high, dtype=bool)


def _product(emit: Emitter, x: gs.Tensor, weights: gs.Variable, axis: int, rank: int) -> gs.Variable:
    if axis == rank - 2:
        return emit("MatMul", weights, x)
    turned = emit("Transpose", weights, perm=[1, 0])
    if axis == rank - 1:
        return emit("MatMul", x, turned)
    order = [other for other in range(rank) if other != axis] + [axis]
    product = emit("MatMul", emit("Transpose", x, perm=order), turned)
    return emit("Transpose", product, perm=np.argsort(order).tolist())


SURGERY = Surgery(row=5, name="Resize coordinates", thread="row 5 of the table", matches=matches, apply=apply)
