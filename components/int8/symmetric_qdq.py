"""Q/DQ pairs as TensorRT fuses them: symmetric, per-channel weights, FP32 biases, residual sums.

TensorRT 11 takes precision from the graph alone. It runs a layer in INT8 where its input and its weights come out of a
DequantizeLinear; a sum is fused into the convolution before it where its *other* operand is dequantized too. A pair
that nothing can be fused with costs two more passes over the tensor, so there are no others.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from components.core.quantizable import constant_tensors, constant_value, learned_nodes, weighted_nodes
from components.int8.range_rules import Range

LARGEST = 127
"""Largest magnitude of a symmetric INT8 number; -128 is not used."""
_MIN_OPSET = 13
"""Per-channel DequantizeLinear came with it."""
GROUP = 4
"""Channels of a group in which TensorRT-RTX computes depthwise INT8 convolutions."""


def quantize_symmetric(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    restored: Collection[str] = (),
    *,
    group_depthwise: bool = False,
) -> tuple[onnx.ModelProto, list[str]]:
    """A copy with pairs before every learned layer, and at the other operand of every sum that ends in one.

    Args:
        model: FP32, with named nodes.
        ranges: of the activations.
        restored: nodes that stay in floating point.
        group_depthwise: say depthwise convolutions in groups of four channels, their weights filled up with zeros:
            the same numbers. TensorRT-RTX 1.7 makes such groups itself, by joining three channels of zeros to every
            channel of the *activations*, and stores these zeros in the engine: three times the bytes of each input.

    Returns:
        The quantized model and the names of the nodes that compute in INT8.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset_of(copy) < _MIN_OPSET:
        copy = onnx.version_converter.convert_version(copy, _MIN_OPSET)
    inserter = _Inserter(copy, ranges, group_depthwise=group_depthwise)
    quantized: list[str] = []
    layers = set(weighted_nodes(copy.graph)) - set(restored)
    sums = {name: index for name, index in residual_sums(copy).items() if name not in restored}
    for node in list(copy.graph.node):
        if node.name in layers and inserter.layer(node):
            quantized.append(node.name)
        elif node.name in sums:
            inserter.activation(node, sums[node.name])
            quantized.append(node.name)
        inserter.keep(node)
    inserter.finish()
    return copy, quantized


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators."""
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)


def symmetric_tensors(model: onnx.ModelProto) -> list[str]:
    """Activations whose ranges `quantize_symmetric` needs."""
    sums = residual_sums(model)
    layers = set(weighted_nodes(model.graph))
    found = [node.input[0] for node in model.graph.node if node.name in layers]
    found += [node.input[sums[node.name]] for node in model.graph.node if node.name in sums]
    return list(dict.fromkeys(found))


def residual_sums(model: onnx.ModelProto) -> dict[str, int]:
    """Sums of two activations that fuse with the layer before them -> index of the operand that needs the pair.

    The operand without the pair is the result of a layer that nothing else reads; of two such, the later one, since
    the earlier one is finished when the later one adds to it.
    """
    graph = model.graph
    layers, learned, constants = set(weighted_nodes(graph)), learned_nodes(graph), constant_tensors(graph)
    place = {name: number for number, node in enumerate(graph.node) for name in node.output}
    producers = {name: node for node in graph.node for name in node.output}
    reads: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            reads[name] = reads.get(name, 0) + 1
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type != "Add" or node.name not in learned or constants.intersection(node.input):
            continue
        fusable = [
            index
            for index, name in enumerate(node.input)
            if name in producers and producers[name].name in layers and reads[name] == 1
        ]
        if fusable and node.input[0] != node.input[1]:
            last = max(fusable, key=lambda index: place[node.input[index]])
            found[node.name] = 1 - last
    return found


def weight_axis(node: onnx.NodeProto, dimensions: int) -> int | None:
    """Axis of the output channels of a layer's weights; None where one scale must do for all."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return dimensions - 1 if dimensions >= 2 else None


def quantize_weights(
    weights: npt.NDArray[Any], axis: int | None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Weights as symmetric INT8 and their scales, one a channel of `axis` or one for all."""
    magnitudes = np.abs(weights)
    if axis is None:
        largest = np.asarray(magnitudes.max(initial=0))
        shape: tuple[int, ...] = ()
    else:
        others = tuple(one for one in range(weights.ndim) if one != axis)
        largest = magnitudes.max(axis=others)
        shape = tuple(-1 if one == axis else 1 for one in range(weights.ndim))
    # A channel of zeros has any scale; 0 itself is refused.
    scales = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
    steps = np.round(weights / scales.reshape(shape))
    return np.clip(steps, -LARGEST, LARGEST).astype(np.int8), scales


def in_groups(numbers: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Depthwise weights [C, 1, ...] -> [C, 4, ...]: each channel reads its own and three of its neighbours by 0."""
    channels = numbers.shape[0]
    wide = np.zeros((channels, GROUP, *numbers.shape[2:]), np.int8)
    wide[np.arange(channels), np.arange(channels) % GROUP] = numbers[:, 0]
    return wide


def _is_depthwise(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether each of a multiple of four channels is convolved by itself, into one."""
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    return node.op_type == "Conv" and groups == shape[0] > 1 and shape[1] == 1 and shape[0] % GROUP == 0


def _set_group(node: onnx.NodeProto, groups: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "group":
            attribute.i = groups


class _Inserter:
    """Builds the new list of nodes."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range], *, group_depthwise: bool) -> None:
        self.model = model
        self.group_depthwise = group_depthwise
        self.graph = model.graph
        self.ranges = ranges
        self.producers = {name: node for node in self.graph.node for name in node.output}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, npt.NDArray[Any]] = {}
        self.weights: dict[tuple[str, int | None], tuple[str, str, str]] = {}

    def keep(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)

    def layer(self, node: onnx.NodeProto) -> bool:
        """Whether the layer could be given its pairs."""
        source = self.producers.get(node.input[1])
        if source is not None and source.op_type == "DequantizeLinear":
            return False  # it came quantized
        if node.input[0] not in self.ranges:
            return False
        self.activation(node, 0)
        self._weights(node)
        return True

    def activation(self, node: onnx.NodeProto, index: int) -> None:
        """A pair of this node alone: a shared one would tie a restored neighbour to INT8."""
        tensor = node.input[index]
        low, high = self.ranges.get(tensor, (0.0, 0.0))
        largest = max(-low, high)
        scale = self._constant(f"{tensor}/int8_scale", np.float32(largest / LARGEST if largest > 0 else 1.0))
        zero = self._constant("int8_zero", np.int8(0))
        base = f"{node.name}/input{index}"
        self.nodes.append(
            helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{base}/int8"], name=f"{base}/Quantize")
        )
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{base}/int8", scale, zero], [f"{base}/rounded"], name=f"{base}/Dequantize"
            )
        )
        node.input[index] = f"{base}/rounded"

    def _weights(self, node: onnx.NodeProto) -> None:
        tensor = node.input[1]
        weights = constant_value(self.model, tensor)
        axis = weight_axis(node, weights.ndim)
        key = (tensor, axis)
        if key not in self.weights:
            numbers, scales = quantize_weights(weights, axis)
            if self.group_depthwise and _is_depthwise(node, weights.shape):
                numbers = in_groups(numbers)
            suffix = "" if axis is None else f"_{axis}"
            self.weights[key] = (
                self._constant(f"{tensor}/int8{suffix}", numbers),
                self._constant(f"{tensor}/int8_scale{suffix}", scales),
                self._constant(f"{tensor}/int8_zero{suffix}", np.zeros(scales.shape, np.int8)),
            )
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        if self.group_depthwise and _is_depthwise(node, weights.shape):
            _set_group(node, weights.shape[0] // GROUP)
        result = f"{node.name}/weights"
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", [*self.weights[key]], [result], name=f"{node.name}/DequantizeWeights", **attributes
            )
        )
        node.input[1] = result

    def _constant(self, name: str, value: Any) -> str:
        self.added.setdefault(name, np.asarray(value))
        return name

    def finish(self) -> None:
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.added.items())
        drop_unused_constants(self.graph)
        del self.graph.value_info[:]


def drop_unused_constants(graph: onnx.GraphProto) -> None:
    """Removes initializers, and nodes that compute constants, which nothing reads any more."""
    constants = constant_tensors(graph)
    outputs = {value.name for value in graph.output}
    while True:
        used = {name for node in graph.node for name in _reads(node)} | outputs
        dead = [n for n, node in enumerate(graph.node) if set(node.output) <= constants and not used & set(node.output)]
        for number in reversed(dead):
            del graph.node[number]
        if not dead:
            break
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name not in used:
            del graph.initializer[number]


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, the bodies of an If or a Loop included."""
    names = set(node.input)
    for attribute in node.attribute:
        for body in [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs:
            names.update(value.name for value in body.output)
            for inner in body.node:
                names |= _reads(inner)
    return names
