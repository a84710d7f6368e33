"""Bias correction: takes the mean error that rounding gives each channel of a layer out of the layer's bias.

Weights of one channel are rounded alike for all pixels, so their error does not average out: it shifts the channel's
mean, and later layers add the shifts up. Follows Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction" (ICCV 2019), section 4.2, with means over calibration images instead of assumed ones.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from components.core.quantizable import constant_tensors, constant_value
from components.int8.heads import Values, session_for, with_outputs

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def channel_shifts(
    exact: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Sequence[Values]
) -> dict[str, npt.NDArray[np.float64]]:
    """Mean error of each channel of each layer, with FP32 values at its input.

    The layer's own error and not what has piled up before it: every layer is corrected for itself.

    Args:
        exact: FP32, with named nodes.
        quantized: made from it, names kept.
        feeds: inputs of the model.

    Returns:
        Layer -> ``mean(rounded - exact)`` of each output channel, [C]. Layers without a bias are left out.
    """
    model = onnx.ModelProto()
    model.CopyFrom(exact)
    graph = model.graph
    rounded = {node.name: node for node in quantized.graph.node}
    producers = {name: node for node in quantized.graph.node for name in node.output}
    constants = constant_tensors(graph)
    extra: list[onnx.NodeProto] = []
    outputs: dict[str, str] = {}
    added: dict[str, onnx.TensorProto] = {}
    initializers = {one.name: one for one in quantized.graph.initializer}
    for node in exact.graph.node:
        twin = rounded.get(node.name)
        if node.op_type not in (*_CONVOLUTIONS, "Gemm") or twin is None or len(node.input) < 3:
            continue
        if node.input[2] not in constants:
            continue
        pair = _pair(twin.input[0], producers)
        weights = producers.get(twin.input[1])
        if pair is None or weights is None or weights.op_type != "DequantizeLinear":
            continue
        base = f"{node.name}/shift"
        parts = [
            (helper.make_node("QuantizeLinear", [node.input[0], *pair[0].input[1:]], [f"{base}/q"]), pair[0]),
            (helper.make_node("DequantizeLinear", [f"{base}/q", *pair[1].input[1:]], [f"{base}/x"]), pair[1]),
            (helper.make_node("DequantizeLinear", list(weights.input), [f"{base}/w"]), weights),
            (helper.make_node(node.op_type, [f"{base}/x", f"{base}/w", node.input[2]], [f"{base}/y"]), twin),
        ]
        for part, like in parts:
            part.attribute.extend(like.attribute)
            extra.append(part)
            added |= {name: initializers[name] for name in part.input if name in initializers}
        axes = [0, 2, 3][: 1 if node.op_type == "Gemm" else 3]
        extra.append(helper.make_node("Sub", [f"{base}/y", node.output[0]], [f"{base}/error"]))
        extra.append(_mean(f"{base}/error", f"{base}/mean", axes, added, _opset(model)))
        outputs[node.name] = f"{base}/mean"
    present = {one.name for one in graph.initializer}
    graph.initializer.extend(one for name, one in added.items() if name not in present)
    graph.node.extend(extra)
    if not outputs or not feeds:
        return {}
    session = session_for(with_outputs(model, list(outputs.values())), exact=True)
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for feed in feeds:
        for name, mean in zip(outputs, session.run(list(outputs.values()), feed), strict=True):
            sums[name] = sums.get(name, np.zeros(mean.size)) + mean.reshape(-1).astype(np.float64)
    return {name: total / len(feeds) for name, total in sums.items()}


def with_corrected_biases(exact: onnx.ModelProto, shifts: dict[str, npt.NDArray[np.float64]]) -> onnx.ModelProto:
    """A copy of the FP32 model whose biases make up for the shifts that its quantized form has."""
    copy = onnx.ModelProto()
    copy.CopyFrom(exact)
    for node in copy.graph.node:
        shift = shifts.get(node.name)
        if shift is None or not np.isfinite(shift).all():
            continue
        bias = constant_value(exact, node.input[2]).astype(np.float64)
        if bias.size != shift.size:
            continue
        name = f"{node.name}/corrected_bias"
        copy.graph.initializer.append(
            numpy_helper.from_array((bias - shift.reshape(bias.shape)).astype(np.float32), name)
        )
        node.input[2] = name
    return copy


def _pair(tensor: str, producers: dict[str, onnx.NodeProto]) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """The QuantizeLinear and the DequantizeLinear that a tensor comes out of."""
    last = producers.get(tensor)
    if last is None or last.op_type != "DequantizeLinear":
        return None
    first = producers.get(last.input[0])
    return (first, last) if first is not None and first.op_type == "QuantizeLinear" else None


def _mean(source: str, result: str, axes: list[int], added: dict[str, onnx.TensorProto], opset: int) -> onnx.NodeProto:
    if opset < 18:
        return helper.make_node("ReduceMean", [source], [result], axes=axes, keepdims=0)
    name = f"axes_{len(axes)}"
    added[name] = numpy_helper.from_array(np.array(axes, np.int64), name)
    return helper.make_node("ReduceMean", [source, name], [result], keepdims=0)


def _opset(model: onnx.ModelProto) -> int:
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)
