"""The learned part of an ONNX model, run alone: what its heads put out, in FP32 and quantized, on the same RoIs.

A detector's boxes cannot be compared number by number: one RoI that is chosen differently changes all rows after it.
So what the tail computes in between (RoIs, indices) is recorded from the FP32 model once and fed to every other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from components.core.feeds import Batch, feed
from components.core.machine import usable_cores
from components.core.quantizable import constant_tensors, float_tensors, learned_nodes, name_nodes

if TYPE_CHECKING:
    import onnx

Values = dict[str, npt.NDArray[Any]]
_SHAPES_ONLY = ("Shape", "Size")
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Heads:
    """Where the learned part of a model begins and ends."""

    fed: tuple[str, ...]
    """Tensors of the tail that the learned part reads."""
    ports: tuple[tuple[str, int], ...]
    """What the tail or the user reads of it: a node's name and which input; an empty name stands for the graph's own
    outputs. Ports and not tensors, because quantization puts new tensors in between."""


def find_heads(model: "onnx.ModelProto") -> Heads:
    """The border of the learned part; nodes must have names (`name_nodes`)."""
    graph = model.graph
    learned, constants, floats = learned_nodes(graph), constant_tensors(graph), float_tensors(model)
    made = {name for node in graph.node if node.name in learned for name in node.output}
    given = {value.name for value in graph.input}
    fed: dict[str, None] = {}
    ports: list[tuple[str, int]] = []
    seen: set[str] = set()
    for node in graph.node:
        for index, name in enumerate(node.input):
            if node.name in learned:
                if name and name not in made and name not in constants and name not in given:
                    fed[name] = None
            elif name in made and name in floats and node.op_type not in _SHAPES_ONLY and name not in seen:
                seen.add(name)
                ports.append((node.name, index))
    ports += [("", i) for i, out in enumerate(graph.output) if out.name in made and out.name not in seen]
    return Heads(tuple(fed), tuple(ports))


def port_tensors(graph: "onnx.GraphProto", heads: Heads) -> list[str]:
    """Names of the tensors at the ports, in a model or a quantized form of it."""
    nodes = {node.name: node for node in graph.node}
    return [nodes[name].input[index] if name else graph.output[index].name for name, index in heads.ports]


def with_outputs(model: "onnx.ModelProto", tensors: Sequence[str]) -> "onnx.ModelProto":
    """A copy whose outputs are these tensors; what none of them needs is left out."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors))
    del copy.graph.value_info[:]
    _drop_unused(copy.graph)
    return copy


def head_model(model: "onnx.ModelProto", heads: Heads, example: Values) -> "onnx.ModelProto":
    """The learned part alone: inputs are the model's own and `heads.fed`, outputs the tensors at the ports.

    Args:
        model: FP32, or quantized from it with its nodes' names kept.
        heads: of the FP32 model.
        example: a value of each fed tensor, for its type.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    outputs = port_tensors(graph, heads)
    for node in graph.node:  # a fed tensor becomes an input, so nothing may produce it
        for index, name in enumerate(node.output):
            if name in heads.fed:
                node.output[index] = f"{name}/unused"
    for name in heads.fed:
        kind = onnx.helper.np_dtype_to_tensor_dtype(example[name].dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return with_outputs(copy, outputs)


def _drop_unused(graph: "onnx.GraphProto") -> None:
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                needed.update(_outer_reads(attribute))
    kept.reverse()
    nodes = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input} | needed
    initializers = [initializer for initializer in graph.initializer if initializer.name in used]
    kept_initializers = [type(one).FromString(one.SerializeToString()) for one in initializers]
    del graph.initializer[:]
    graph.initializer.extend(kept_initializers)


def _outer_reads(attribute: Any) -> set[str]:
    """Names that the bodies of an If or a Loop read."""
    bodies = [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)
    reads: set[str] = set()
    for body in bodies:
        reads.update(value.name for value in body.output)
        for node in body.node:
            reads.update(node.input)
            for inner in node.attribute:
                reads.update(_outer_reads(inner))
    return reads


def session_for(model: "onnx.ModelProto", *, exact: bool = False) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: at most 2 GiB.
        exact: every node by itself, so that Q/DQ pairs round as they say and are not fused into integer kernels.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.intra_op_num_threads = usable_cores()
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if exact:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


class HeadProbe:
    """FP32 heads on a few images, and the inputs that every quantized form is compared on.

    Args:
        model: FP32, with named nodes.
        batches: inputs that nothing was calibrated on.
    """

    def __init__(self, model: "onnx.ModelProto", batches: Sequence[Batch]) -> None:
        name_nodes(model.graph)
        self.heads = find_heads(model)
        tensors = port_tensors(model.graph, self.heads)
        wanted = list(dict.fromkeys([*tensors, *self.heads.fed]))
        session = session_for(with_outputs(model, wanted))
        self.inputs = [value.name for value in model.graph.input]
        self.feeds: list[Values] = []
        self.exact: list[list[npt.NDArray[Any]]] = []
        for batch in batches:
            fed = feed(batch, self.inputs)
            values = dict(zip(wanted, session.run(wanted, fed), strict=True))
            self.feeds.append(fed | {name: values[name] for name in self.heads.fed})
            self.exact.append([values[name] for name in tensors])

    def head_model(self, model: "onnx.ModelProto") -> "onnx.ModelProto":
        """See `head_model`."""
        return head_model(model, self.heads, self.feeds[0])

    def outputs(self, model: "onnx.ModelProto", *, exact: bool = True) -> list[list[npt.NDArray[Any]]]:
        """Head outputs of a form of the model, image by image."""
        names = port_tensors(model.graph, self.heads)
        session = session_for(self.head_model(model), exact=exact)
        needed = {value.name for value in session.get_inputs()}
        return [session.run(names, {k: v for k, v in feed.items() if k in needed}) for feed in self.feeds]
