"""QLinear operators as DequantizeLinear, the operator on floats, QuantizeLinear (row 27).

Inputs come in threes, a tensor, its scale and its zero point; the forms below say in which order each operator has
them. Scales and zero points of one element become scalars, which is what TensorRT and newer opsets want.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.quantizers import DEQUANTIZE, QUANTIZE


@dataclass(frozen=True)
class Site:
    """One node, and what writes its replacement."""

    node: gs.Node
    emit: Emitter

    def real(self, at: int, axis: int | None = None) -> gs.Variable:
        """Input `at`, whose scale and zero point follow it, as floats."""
        q, scale, zero = self.node.inputs[at], self.node.inputs[at + 1], optional_input(self.node, at + 2)
        values = constant(scale)
        several = axis is not None and (values is None or values.size > 1)
        given = [shaped(self.emit, tensor, several) for tensor in (scale, zero) if tensor is not None]
        attributes: dict[str, Any] = {"axis": axis} if several else {}
        return self.emit(DEQUANTIZE, q, *given, dtype=numpy_dtype(scale), **attributes)

    def finish(self, y: gs.Variable, at: int) -> None:
        """Quantizes the result with the scale and zero point of inputs `at` and `at + 1`."""
        scale, zero, result = self.node.inputs[at], optional_input(self.node, at + 1), self.node.outputs[0]
        given = [shaped(self.emit, scale, several=False)]
        given += [shaped(self.emit, zero, several=False)] if zero is not None else []
        if result.dtype is None:  # operators outside the standard have no inferred types
            result.dtype = np.dtype(np.uint8) if zero is None else zero.dtype
        self.emit.finish(self.emit(QUANTIZE, y, *given, dtype=result.dtype), result)


def shaped(emit: Emitter, tensor: gs.Tensor, several: bool) -> gs.Tensor:
    """A scale or zero point as DequantizeLinear wants it: a scalar, or one number a channel."""
    values = constant(tensor)
    if values is None:
        return tensor if several else emit.reshape(tensor, (), dtype=tensor.dtype)
    shape = (-1,) if several else ()
    return tensor if values.shape == values.reshape(shape).shape else emit.constant(values.reshape(shape))


def _conv(site: Site) -> None:
    node, emit = site.node, site.emit
    inputs = [site.real(0), site.real(3, axis=0)]
    bias = optional_input(node, 8)
    if bias is not None:
        inputs.append(_bias(emit, bias, node.inputs[1], node.inputs[4]))
    site.finish(emit("Conv", *inputs, **node.attrs), 6)


def _bias(emit: Emitter, bias: gs.Tensor, *scales: gs.Tensor) -> gs.Tensor:
    """An INT32 bias, whose scale is the product of the operands' scales, as floats."""
    values = [constant(tensor) for tensor in (bias, *scales)]
    known = [value.astype(np.float32) for value in values if value is not None]
    if len(known) == 3:
        return emit.constant(np.asarray(known[0] * (known[1].reshape(-1) * known[2].reshape(-1)), np.float32))
    flat = [emit.reshape(scale, (-1,)) for scale in scales]
    return emit("Mul", emit.cast(bias, np.float32), emit("Mul", *flat))


def _matmul(site: Site) -> None:
    b = site.node.inputs[3]
    axis = len(b.shape) - 1 if b.shape is not None and len(b.shape) >= 2 else None
    site.finish(site.emit("MatMul", site.real(0), site.real(3, axis=axis)), 6)


def _gemm(site: Site) -> None:
    node, emit = site.node, site.emit
    attributes = {key: node.attrs[key] for key in ("alpha", "transA", "transB") if key in node.attrs}
    inputs = [site.real(0), site.real(3, axis=0 if attributes.get("transB", 0) else 1)]
    bias = optional_input(node, 6)
    if bias is not None:
        # The bias is scaled by alpha as well: it is added to the integer sums.
        alpha = emit.constant(np.array([attributes.get("alpha", 1.0)], np.float32))
        floats = _bias(emit, bias, node.inputs[1], node.inputs[4])
        inputs.append(floats if attributes.get("alpha", 1.0) == 1.0 else emit("Mul", floats, alpha))
    y = emit("Gemm", *inputs, **attributes)
    if optional_input(node, 7) is not None:
        site.finish(y, 7)
    else:
        emit.finish(y, node.outputs[0])


def _binary(op: str) -> Callable[[Site], None]:
    return lambda site: site.finish(site.emit(op, site.real(0), site.real(3)), 6)


def _unary(op: str, *kept: str) -> Callable[[Site], None]:
    def write(site: Site) -> None:
        attributes = {key: value for key, value in site.node.attrs.items() if key in kept}
        site.finish(site.emit(op, site.real(0), **attributes), 3)

    return write


def _softmax(site: Site) -> None:
    node, emit = site.node, site.emit
    x, axis = site.real(0), int(node.attrs.get("axis", -1))
    shape = node.inputs[0].shape
    last = shape is not None and axis in (-1, len(shape) - 1)
    if node.attrs.get("opset", 13) >= 13 or last:
        site.finish(emit("Softmax", x, axis=axis), 3)
        return
    # Before opset 13 all axes from `axis` on count as one.
    flat = emit("Softmax", emit("Flatten", x, axis=axis), axis=-1)
    site.finish(emit("Reshape", flat, emit("Shape", x, dtype=np.int64)), 3)


def _concat(site: Site) -> None:
    parts = [site.real(at) for at in range(2, len(site.node.inputs), 3)]
    site.finish(site.emit("Concat", *parts, axis=site.node.attrs["axis"]), 0)


def _where(site: Site) -> None:
    site.finish(site.emit("Where", site.node.inputs[0], site.real(1), site.real(4)), 7)


FORMS: dict[str, Callable[[Site], None]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearAveragePool": _unary(
        "AveragePool", "auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"
    ),
    "QLinearSoftmax": _softmax,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
}
RESULT_AT = {
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), 6),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), 3),
    **dict.fromkeys(("QLinearGlobalAveragePool", "QLinearAveragePool"), 3),
    "QGemm": 7,
    "QLinearConcat": 0,
    "QLinearWhere": 7,
}
"""Where each operator's scale of the result is; its zero point follows."""
