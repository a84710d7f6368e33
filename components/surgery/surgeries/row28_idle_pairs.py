"""Row 28: Q/DQ pairs that no layer can fuse, which make INT8 slower than FP16 (TensorRT #993, #4554).

A pair pays where a convolution or product reads it together with quantized weights, where a residual sum does, or
where a layer writes its result through it. Elsewhere (between a sigmoid and a product, before a softmax, at an output)
it only rounds, and keeps pointwise operators apart that would be one kernel. Such a pair goes. Numbers move by half a
step at most, towards the model before quantization; values beyond the range are clipped as before.

* A pair between a layer and its activation goes, when another one follows: the two can be one kernel then.
* A pair that repeats the pair before it, with the same parameters, changes nothing and goes.
* A pair of 16 bits goes anyway: TensorRT has no such type, and half a step of it is 1e-5 of the range.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input, scalar
from components.surgery.quantizers import (
    DEQUANTIZE,
    MOVES,
    QUANTIZE,
    Quantizer,
    Range,
    dequantized,
    quantizer,
    value_range,
)
from components.surgery.surgery import Change, Options, Surgery, label

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SUMS = frozenset({"Add", "Sum"})
_MOVES = (MOVES - {"ReduceMax", "ReduceMin", "Max", "Min"}) | {
    *("AveragePool", "GlobalAveragePool", "Resize", "Pad", "Relu", "Clip", "LeakyRelu", "PRelu", "BatchNormalization"),
}
"""Operators that TensorRT moves pairs across, or fuses into the layer before."""
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu"})
_WIDE = (np.dtype(np.int16), np.dtype(np.uint16))
_DEPTH = 16


def matches(graph: gs.Graph) -> bool:
    """Whether there is such a pair."""
    fused: dict[int, bool] = {}
    kept = {id(tensor) for tensor in graph.outputs}
    return any(_reason(node, kept, fused) for node in graph.nodes) or any(_wide_weights(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Takes the pairs out."""
    changes = []
    fused: dict[int, bool] = {}
    known: dict[str, Range] = {}
    kept = {id(tensor) for tensor in graph.outputs}
    graph.toposort()
    bypassed: set[str] = set()
    found = [(node, _reason(node, kept, fused)) for node in graph.nodes]
    for node, _ in found:
        if node.op == QUANTIZE:
            value_range(node.inputs[0], known)  # while the pairs that bound it still stand
    going = {id(node) for node, why in found if why}
    for node, why in found:
        if label(node) in options.skip or not node.outputs:
            continue
        if why == _REPEATED:
            if node.inputs[0].name not in bypassed:  # else the next sweep's, so that each keeps its border
                changes.append(_skip_repeated(node))
                bypassed.update(changes[-1].outputs)
        elif why:
            changes.append(_take_out(graph, node, why, known, going))
        elif _wide_weights(node):
            changes.append(_to_floats(graph, node))
    return changes


_REPEATED = "it repeats the pair before it"


def _reason(node: gs.Node, kept: set[int], fused: dict[int, bool]) -> str:
    """Why the pair that begins with this QuantizeLinear goes, or nothing."""
    if node.op != QUANTIZE or not node.outputs or id(node.outputs[0]) in kept:
        return ""
    by, readers = quantizer(node), node.outputs[0].outputs
    if by is None or not readers or any(reader.op != DEQUANTIZE or not _undoes(reader, by) for reader in readers):
        return ""
    if by.dtype in _WIDE:
        return "TensorRT has no quantization to 16 bits"
    if isinstance(node.inputs[0], gs.Constant) or by.scale.ndim or by.dtype != np.dtype(np.int8) or by.zero.any():
        return ""
    before = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if before is not None and before.op == DEQUANTIZE and _undoes(before, by) and before.inputs[0].inputs:
        return _REPEATED
    if _before_activation(readers):
        return "an activation behind this pair cannot be fused into the layer before it"
    if _written_by_layer(node.inputs[0], _DEPTH):
        return ""
    if any(_fuses(reader.outputs[0], fused, kept, _DEPTH) for reader in readers):
        return ""
    return "no layer fuses this pair, which only rounds and keeps pointwise operators apart"


def _before_activation(readers: Sequence[gs.Node]) -> bool:
    """Whether all that reads the pair is an activation that a further pair follows: conv, Q, DQ, Relu, Q, DQ."""
    activations = [activation for reader in readers for activation in reader.outputs[0].outputs]
    return bool(activations) and all(
        activation.op in _ACTIVATIONS
        and activation.outputs[0].outputs
        and all(reader.op == QUANTIZE for reader in activation.outputs[0].outputs)
        for activation in activations
    )


def _undoes(reader: gs.Node, by: Quantizer) -> bool:
    other = quantizer(reader)
    return other is not None and other.same(by)


def _written_by_layer(tensor: gs.Tensor, depth: int) -> bool:
    """Whether a layer, or what is fused into it, makes the tensor: then it writes INT8."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None:
        return False
    if node.op in _LAYERS or node.op in _SUMS:
        return True
    return depth > 0 and node.op in _MOVES and bool(node.inputs) and _written_by_layer(node.inputs[0], depth - 1)


def _fuses(tensor: gs.Tensor, fused: dict[int, bool], kept: set[int], depth: int) -> bool:
    """Whether a layer computes on these numbers as integers, also behind what only moves them."""
    if id(tensor) not in fused:
        fused[id(tensor)] = any(_uses(reader, fused, kept, depth) for reader in tensor.outputs)
    return fused[id(tensor)]


def _uses(reader: gs.Node, fused: dict[int, bool], kept: set[int], depth: int) -> bool:
    if reader.op in _SUMS:
        return True
    if reader.op in _LAYERS:
        return all(_is_dequantized(operand) for operand in reader.inputs[:2])
    if reader.op == QUANTIZE:
        return True  # what requantizes may be fused; leave it
    if reader.op not in _MOVES:
        return False
    return depth == 0 or any(_fuses(result, fused, kept, depth - 1) for result in reader.outputs)


def _is_dequantized(tensor: gs.Tensor) -> bool:
    """Whether a DequantizeLinear makes the tensor, possibly moved."""
    for _ in range(_DEPTH):
        node = tensor.inputs[0] if tensor.inputs else None
        if node is None:
            return False
        if node.op == DEQUANTIZE:
            return True
        if node.op not in _MOVES:
            return False
        tensor = node.inputs[0]
    return False


def _skip_repeated(node: gs.Node) -> Change:
    first = node.inputs[0].inputs[0].inputs[0]
    readers = list(node.outputs[0].outputs)
    for reader in readers:
        reader.inputs = [first, *reader.inputs[1:]]
    node.outputs.clear()
    made = tuple(reader.outputs[0].name for reader in readers)
    return Change(label(node), _REPEATED, "taken out, exactly", inputs=(first.name,), outputs=made)


def _take_out(graph: gs.Graph, node: gs.Node, why: str, known: dict[str, Range], going: set[int]) -> Change:
    by, given, readers = quantizer(node), node.inputs[0], list(node.outputs[0].outputs)
    assert by is not None
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/floats")
    low, high = (np.asarray(side * by.scale, by.scale.dtype) for side in (by.low, by.high))
    half = float(by.scale.max()) / 2
    change = Change(
        label(node),
        why,
        f"taken out; numbers move by half a step at most, {half / by.span:.1g} of the range",
        inputs=(given.name,) if isinstance(given, gs.Variable) else (),
        outputs=tuple(reader.outputs[0].name for reader in readers),
        tolerance=half / by.span * 1.01 + 1e-5,
        span=by.span,
    )
    bounds = value_range(given, known)
    x = given
    if by.scale.ndim == 0 and (bounds[0] < low or bounds[1] > high):
        following = _cut_by(readers, by, going)
        if following:
            steps = 1 + half / min(float(other.scale) for _, other in following)
            cut = tuple(reader.outputs[0].name for reader, _ in following)
            change = replace(change, outputs=cut, span=255.0, tolerance=steps / 255)
        else:
            x = emit("Clip", given, low, high, dtype=by.scale.dtype)
            change = replace(change, what=f"{change.what}; still clipped to {low:g}..{high:g}")
    for reader in readers:
        emit.finish(emit("Identity", x, dtype=by.scale.dtype), reader.outputs[0])
    node.outputs.clear()
    return change


def _cut_by(readers: Sequence[gs.Node], by: Quantizer, going: set[int]) -> list[tuple[gs.Node, Quantizer]]:
    """Quantizers behind a Relu or ReLU6 that saturate where this one does, or before; none if one of them does not."""
    found = []
    for activation in (activation for reader in readers for activation in reader.outputs[0].outputs):
        limit = optional_input(activation, 1) if activation.op == "Clip" else None
        least = None if limit is None else scalar(limit)
        if not (activation.op == "Relu" or (least is not None and least >= 0)):
            return []
        for reader in activation.outputs[0].outputs:
            other = quantizer(reader) if reader.op == QUANTIZE and id(reader) not in going else None
            if other is None or other.scale.ndim or other.span > by.span:
                return []
            found.append((reader, other))
    return found


def _wide_weights(node: gs.Node) -> bool:
    return node.op == DEQUANTIZE and numpy_dtype(node.inputs[0]) in _WIDE and constant(node.inputs[0]) is not None


def _to_floats(graph: gs.Graph, node: gs.Node) -> Change:
    by, result = quantizer(node), node.outputs[0]
    assert by is not None
    emit = Emitter(graph, f"{node.name or result.name}/floats")
    values = dequantized(node.inputs[0].values, by)
    name = label(node)
    emit.finish(emit("Identity", values, dtype=values.dtype), result)
    what = "the floats that they stand for"
    return Change(name, "TensorRT has no quantization to 16 bits", what, outputs=(result.name,))


SURGERY = Surgery(
    row=28,
    name="idle Q/DQ pairs",
    thread="TensorRT #993, #4554",
    matches=matches,
    apply=apply,
)
