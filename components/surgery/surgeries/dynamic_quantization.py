"""Quantization with ranges measured at run time, in plain arithmetic with the same steps (row 27).

The integers minus their zero point are whole numbers, which floats hold exactly up to 2^24, and so are the sums of
their products. Constant weights stay int8 in the file, behind a DequantizeLinear of scale 1.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, optional_input
from components.surgery.quantizers import DEQUANTIZE
from components.surgery.surgeries.qlinear_forms import Site
from components.surgery.surgery import Change, label, refusal

ROUNDED = 2e-4
"""Accepted where steps are measured at run time: the step is a float itself, and one value in many may round the
other way."""

WAY_OUT = "quantize this layer statically, or leave it in floats"


def _centred(emit: Emitter, q: gs.Tensor, zero: gs.Tensor | None, axis: int | None) -> gs.Tensor:
    """``q - zero`` as floats; constants that fit stay int8 behind a DequantizeLinear of scale 1."""
    values, shift = constant(q), np.zeros((), np.int64) if zero is None else constant(zero)
    if values is None or shift is None:
        return _minus(emit, emit.cast(q, np.float32), zero, axis)
    shift = shift.astype(np.int64)
    if shift.size > 1:
        shape = [1] * values.ndim
        shape[axis if axis is not None else -1] = -1
        shift = shift.reshape(shape)
    centred = values.astype(np.int64) - shift.reshape(() if shift.size == 1 else shift.shape)
    if np.abs(centred).max(initial=0) > 127:
        return emit.constant(centred.astype(np.float32))
    return emit(DEQUANTIZE, centred.astype(np.int8), np.float32(1), np.int8(0))


def _minus(emit: Emitter, x: gs.Tensor, zero: gs.Tensor | None, axis: int | None) -> gs.Tensor:
    if zero is None:
        return x
    shift = emit.cast(zero, np.float32)
    if axis is not None and zero.shape is not None and len(zero.shape) == 1 and zero.shape[0] != 1:
        shift = emit.reshape(shift, [-1 if place == axis else 1 for place in range(len(x.shape or (0, 0)))])
    elif zero.shape is None or len(zero.shape):
        shift = emit.reshape(shift, ())
    return emit("Sub", x, shift)


def _sums(site: Site, x: gs.Tensor | None = None) -> gs.Variable:
    """The integer sums of MatMulInteger or ConvInteger, as floats: exact up to 2^24."""
    node, emit = site.node, site.emit
    rank = len(node.inputs[0].shape) if node.inputs[0].shape is not None else 2
    conv = node.op == "ConvInteger"
    if x is None:
        x = _centred(emit, node.inputs[0], optional_input(node, 2), None if conv else rank - 2)
    weights = _centred(emit, node.inputs[1], optional_input(node, 3), 0 if conv else None)
    return emit("Conv", x, weights, **node.attrs) if conv else emit("MatMul", x, weights)


def _integer_sums(site: Site) -> None:
    site.emit.finish(site.emit.cast(_sums(site), np.int32), site.node.outputs[0])


def measured_by(q: gs.Tensor) -> gs.Node | None:
    """The DynamicQuantizeLinear that makes this tensor."""
    node = q.inputs[0] if q.inputs else None
    return node if node is not None and node.op == "DynamicQuantizeLinear" and node.outputs[0] is q else None


def _measured(emit: Emitter, x: gs.Tensor) -> tuple[gs.Variable, gs.Variable, gs.Variable]:
    """DynamicQuantizeLinear in floats: ``q - zero``, the scale [] and the zero point []."""
    flat = emit.reshape(x, (-1,))
    zero, steps = np.float32(0), np.float32(255)
    low = emit("Min", emit.reduce("ReduceMin", flat, [0], keepdims=False), zero)
    high = emit("Max", emit.reduce("ReduceMax", flat, [0], keepdims=False), zero)
    width = emit("Sub", high, low)
    flat_out = emit("Equal", width, zero, dtype=bool)
    scale = emit("Where", flat_out, np.float32(1), emit("Div", width, steps))
    point = emit("Clip", emit("Round", emit("Neg", emit("Div", low, scale))), zero, steps)
    q = emit("Clip", emit("Add", emit("Round", emit("Div", x, scale)), point), zero, steps)
    return emit("Sub", q, point), scale, point


def measure_in_floats(graph: gs.Graph, emit: Emitter, node: gs.Node) -> Change:
    """Replaces a DynamicQuantizeLinear and the products that read it; what stays int32 or uint8 is cast to it."""
    q, scale, zero = (*node.outputs, None, None)[:3]
    readers, x = list(q.outputs), node.inputs[0]
    known = all(
        reader.op in ("MatMulInteger", "ConvInteger", DEQUANTIZE)
        and reader.inputs[0] is q
        and optional_input(reader, 1 if reader.op == DEQUANTIZE else 2) is (scale if reader.op == DEQUANTIZE else zero)
        for reader in readers
    )
    if not known or q in graph.outputs:
        return refusal(node, "its integers are read by something else than a product or a DequantizeLinear", WAY_OUT)
    centred, step, point = _measured(emit, x)
    borders = []
    for reader in readers:
        result = reader.outputs[0]
        if reader.op == DEQUANTIZE:
            emit.finish(emit("Mul", centred, step), result)
            borders.append(result)
            reader.outputs.clear()
            reader.inputs.clear()
            continue
        sums = _sums(Site(reader, emit), centred)
        for cast in list(result.outputs):
            if cast.op == "Cast" and cast.attrs["to"] == onnx.TensorProto.FLOAT:
                borders.append(cast.outputs[0])
                cast.inputs = [sums]
        if result.outputs or result in graph.outputs:
            emit.finish(emit.cast(sums, np.int32), result)
            borders.append(result)
        reader.outputs.clear()
        reader.inputs.clear()
    for tensor, made, dtype in ((scale, step, np.float32), (zero, point, np.uint8)):
        if tensor is not None and (tensor.outputs or tensor in graph.outputs):
            emit.finish(emit("Identity", made) if dtype == np.float32 else emit.cast(made, dtype), tensor)
            borders.append(tensor)
    what = "rounds to the same steps in floats, weights stay int8; quantize statically to compute in INT8"
    return Change(
        label(node),
        "TensorRT has no ranges that are measured at run time",
        what,
        inputs=(x.name,),
        outputs=tuple(tensor.name for tensor in borders if tensor.dtype != np.uint8),
        tolerance=ROUNDED,
    )


def _dynamic_matmul(site: Site) -> None:
    """DynamicQuantizeMatMul(A, B, scale of B, zero point of B, bias)."""
    node, emit = site.node, site.emit
    centred, scale, _ = _measured(emit, node.inputs[0])
    sums = emit("MatMul", centred, _centred(emit, node.inputs[1], optional_input(node, 3), None))
    _scaled(site, sums, emit("Mul", scale, node.inputs[2]), optional_input(node, 4))


def _float_matmul(site: Site) -> None:
    """MatMulIntegerToFloat(A, B, scale of A, scale of B, zero point of A, zero point of B, bias)."""
    node, emit = site.node, site.emit
    sums = emit(
        "MatMul",
        _centred(emit, node.inputs[0], optional_input(node, 4), None),
        _centred(emit, node.inputs[1], optional_input(node, 5), None),
    )
    _scaled(site, sums, emit("Mul", node.inputs[2], node.inputs[3]), optional_input(node, 6))


def _scaled(site: Site, sums: gs.Variable, scale: gs.Variable, bias: gs.Tensor | None) -> None:
    y = site.emit("Mul", sums, scale)
    site.emit.finish(y if bias is None else site.emit("Add", y, bias), site.node.outputs[0])


SUMS: dict[str, Callable[[Site], None]] = {
    "MatMulInteger": _integer_sums,
    "ConvInteger": _integer_sums,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _float_matmul,
}
