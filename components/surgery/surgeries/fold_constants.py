"""Constant folding: what does not depend on the input is computed once, here.

Exporters write shape arithmetic and constants as nodes. TensorRT's parser wants many of these as initializers, and the
other surgeries find their patterns only once the constants are plain. Shapes are folded where they are static; what
would blow the model up is left to run time, and Q/DQ nodes stay, since they say where INT8 is meant.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from components.surgery.evaluate import EvaluationError, Model, model_of, value_info
from components.surgery.graphs import constant, has_subgraphs, numpy_dtype, static_shape
from components.surgery.reading import Node
from components.surgery.sorting import bodies, sort
from components.surgery.surgery import EVERY_TARGET, WHOLE_GRAPH, Change, Options, Surgery
from components.surgery.writing import write_node

MAX_GROWTH = 2**18
"""Bytes that a folded node's outputs may be larger than its inputs."""
MAX_READ = 2**26
"""Bytes of constants that a folded node may read: larger weights are left to the runtime, and are not loaded here."""
_MAX_WAVE = 2**26
"""Bytes that are made in one run, in which ONNX Runtime holds them twice."""
_NEVER = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"),
}
_GROWING = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators that may make anything of nothing, and the input that says how large."""


def matches(graph: gs.Graph) -> bool:
    """Whether a node can be computed now."""
    outputs = {id(tensor) for tensor in graph.outputs}
    return any(_foldable(node, {}) and _affordable(node) and not _is_output(node, outputs) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:  # noqa: ARG001
    """Computes them, in topological order, so that what depends on them folds in the same pass."""
    sort(graph)
    bench = _Bench(graph)
    while bench.fold_some():
        pass
    if not bench.folded:
        return []
    total = sum(bench.folded.values())
    counts = ", ".join(f"{count} {op}" for op, count in bench.folded.most_common(6))
    why = "nodes that depend on no input hide constants from parsers"
    return [Change(node=WHOLE_GRAPH, why=why, what=f"computed {total} nodes: {counts}")]


@dataclass
class _Bench:
    """Folds a graph wave by wave: a wave is what can be computed in one run of ONNX Runtime."""

    graph: gs.Graph
    folded: Counter[str] = field(default_factory=Counter)
    _left: list[gs.Node] = field(init=False)
    _wanted: set[int] = field(init=False)
    """Ids of tensors that leave the graph, or leave a body in it, without a node that reads them."""
    _outputs: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self._left = list(self.graph.nodes)
        self._outputs = {id(tensor) for tensor in self.graph.outputs}
        self._wanted = set(self._outputs)
        waiting = [self.graph]
        while waiting:
            for node in waiting.pop().nodes:
                for _, body in bodies(node):
                    self._wanted |= {id(tensor) for tensor in body.outputs}
                    waiting.append(body)

    def fold_some(self) -> bool:
        """Folds the next wave; whether there was one."""
        planned: dict[int, gs.Node] = {}
        """By the ids of what they make."""
        wave, left, progress, size = [], [], False, 0
        for node in self._left:
            if not _foldable(node, planned) or _is_output(node, self._outputs):
                left.append(node)
            elif (values := _known(node)) is not None:
                self._substitute(node, [values])
                progress = True
            elif _waits(node, planned) or size > _MAX_WAVE:
                left.append(node)
            elif _affordable(node):
                size += sum(_bytes(tensor) for tensor in node.outputs)
                wave.append(node)
                planned.update((id(tensor), node) for tensor in node.outputs)
            else:
                left.append(node)
        self._left = left
        self._run(wave)
        return progress or bool(wave)

    def _run(self, nodes: Sequence[gs.Node]) -> None:
        """Runs the nodes at once; where that fails, in halves, so that one bad node costs only itself."""
        wave: list[gs.Node] = []
        planned: dict[int, gs.Node] = {}
        for node in nodes:
            if _foldable(node, planned):
                wave.append(node)
                planned.update((id(tensor), node) for tensor in node.outputs)
        if not wave:
            return
        try:
            made = self._compute(wave)
        except EvaluationError:
            if len(wave) > 1:
                middle = len(wave) // 2
                self._run(wave[:middle])
                self._run(wave[middle:])
            return
        # Sequences and texts stay; what only they read has to stay with them.
        odd = {id(planned[key]) for key, value in made.items() if not _plain(value)}
        if odd:
            self._run([node for node in wave if id(node) not in odd])
            return
        for node in wave:
            self._substitute(node, [made.get(id(tensor)) for tensor in node.outputs])

    def _compute(self, wave: Sequence[gs.Node]) -> dict[int, np.ndarray]:
        """What nodes outside of the wave read of it, by the ids of the tensors.

        Raises:
            EvaluationError: a node fails.
        """
        inside = {id(node) for node in wave}
        names: dict[int, str] = {}
        fed: dict[str, gs.Constant] = {}
        protos, wanted = [], {}
        for node in wave:
            proto = write_node(node)
            del proto.input[:], proto.output[:]
            proto.name = ""
            for tensor in node.inputs:
                if not tensor.is_empty() and id(tensor) not in names:
                    names[id(tensor)] = f"t{len(names)}"
                    fed[names[id(tensor)]] = tensor
                proto.input.append("" if tensor.is_empty() else names[id(tensor)])
            for tensor in node.outputs:
                if not tensor.is_empty():
                    names[id(tensor)] = f"t{len(names)}"
                    if id(tensor) in self._wanted or any(id(reader) not in inside for reader in tensor.outputs):
                        wanted[names[id(tensor)]] = id(tensor)
                proto.output.append("" if tensor.is_empty() else names[id(tensor)])
            protos.append(proto)
        if not wanted:
            return {}
        values = {name: tensor.values for name, tensor in fed.items()}
        given = [value_info(name, value.dtype, value.shape) for name, value in values.items()]
        made = Model(model_of(protos, given, list(wanted), self.graph))(values)
        return {wanted[name]: value for name, value in made.items()}

    def _substitute(self, node: gs.Node, values: Sequence[np.ndarray | LazyValues | None]) -> None:
        self.folded[node.op] += 1
        results = list(node.outputs)
        node.outputs.clear()
        for tensor, value in zip(results, values, strict=True):
            if value is None:
                continue
            if id(tensor) in self._outputs:
                # A graph output must be made by a node: an Identity of the constant.
                source = gs.Constant(f"{tensor.name}/folded", value)
                name = f"{tensor.name}/identity"
                self.graph.nodes.append(Node("Identity", name=name, inputs=[source], outputs=[tensor]))
            else:
                tensor.to_constant(value)


def _foldable(node: gs.Node, planned: Mapping[int, gs.Node]) -> bool:
    """Whether everything that the node reads is known, or is made by a planned node."""
    if node.op in _NEVER or node.domain not in (None, "", "ai.onnx") or has_subgraphs(node) or not node.outputs:
        return False
    if node.op == "Constant":
        return not any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values())
    if _known(node) is not None:
        return True
    return bool(node.inputs) and all(
        tensor.is_empty() or id(tensor) in planned or (isinstance(tensor, gs.Constant) and _can_be_fed(tensor))
        for tensor in node.inputs
    )


def _can_be_fed(tensor: gs.Constant) -> bool:
    """Whether NumPy, and so ONNX Runtime, has the type: no text, no bfloat16 and 8-bit floats."""
    dtype = numpy_dtype(tensor)
    return dtype is not None and dtype.kind in "fiub"


def _known(node: gs.Node) -> np.ndarray | LazyValues | None:
    """The value of a node that needs no computing."""
    value: np.ndarray | LazyValues | None = None
    if node.op == "Constant" and isinstance(node.attrs.get("value"), gs.Constant):
        value = node.attrs["value"]._values
    elif node.op == "Identity" and isinstance(node.inputs[0], gs.Constant):
        value = node.inputs[0]._values
    elif node.op == "Shape" and node.inputs:
        shape = static_shape(node.inputs[0])
        if shape is not None:
            sizes = np.array(shape, np.int64)
            value = sizes[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
    return None if isinstance(value, SparseValues) else value


def _is_output(node: gs.Node, outputs: Collection[int]) -> bool:
    """Whether the node only makes a constant an output of the graph, which needs a node."""
    return node.op == "Identity" and id(node.outputs[0]) in outputs


def _waits(node: gs.Node, planned: Mapping[int, gs.Node]) -> bool:
    """Whether it cannot be said yet how large the outputs are."""
    return node.op in _GROWING and any(id(tensor) in planned for tensor in node.inputs)


def _affordable(node: gs.Node) -> bool:
    """Whether the outputs are known to be small, or at least not known to be large, and the inputs not too large."""
    if node.op == "Constant" or _known(node) is not None:
        return True
    given = sum(_bytes(tensor) for tensor in node.inputs)
    if node.op in _GROWING and _declared_size(node) * 8 > MAX_GROWTH:
        return False
    made = sum(_bytes(tensor) for tensor in node.outputs)
    return given <= MAX_READ and made <= given + MAX_GROWTH


def _declared_size(node: gs.Node) -> int:
    """Elements that the constant shape input of a node asks for; the guard against a shape that fills the memory."""
    shape = constant(node.inputs[_GROWING[node.op]])
    if shape is None or not np.issubdtype(shape.dtype, np.integer):
        return 0
    size = math.prod(max(int(value), 1) for value in shape.reshape(-1))
    return size * (math.prod(node.inputs[0].shape) if node.op == "Tile" else 1)


def _bytes(tensor: gs.Tensor) -> int:
    shape = static_shape(tensor)
    if shape is None:
        return 0
    dtype = numpy_dtype(tensor)
    return math.prod(shape) * (dtype.itemsize if dtype is not None else 8)


def _plain(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype != object


SURGERY = Surgery(
    row=0,
    name="constant folding",
    thread="onnx-tensorrt #361",
    matches=matches,
    apply=apply,
    targets=EVERY_TARGET,
)
