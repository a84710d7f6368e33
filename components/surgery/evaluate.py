"""Runs models, pieces of models and single nodes in ONNX Runtime, as they stand: without optimization or dropout."""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from components.core.onnx_files import save_onnx, tensors_of
from components.surgery.graphs import has_subgraphs
from components.surgery.weights import Weights, inline, is_reference
from components.surgery.writing import write_node

_IN_MEMORY = 2**30
"""Bytes up to which ONNX Runtime gets a model without a file."""
_CACHED_NODES = 64
_WIDENED = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
"""Types of inputs that a surgery may have widened (row 10)."""


class EvaluationError(Exception):
    """ONNX Runtime cannot run it; its own words."""


class Model:
    """A model ready to run; `extra` names inner tensors to return as well, `weights` is the store of a skeleton."""

    def __init__(self, model: onnx.ModelProto, extra: Sequence[str] = (), weights: Weights | None = None) -> None:
        outputs = {output.name for output in model.graph.output}
        added = [name for name in dict.fromkeys(extra) if name not in outputs]
        if added or weights is not None:
            widened = onnx.ModelProto()
            widened.CopyFrom(model)
            widened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
            model = widened
        self.outputs = [output.name for output in model.graph.output]
        self._fed: dict[str, np.ndarray] = {}
        if weights is not None:
            self._fed = _feed_weights(model, weights)
        try:
            self._session = _session(model)
        except EvaluationError:
            if not self._fed:
                raise
            # Some operators want their weights as initializers.
            self._session = _session(_with_initializers(model, self._fed))
            self._fed = {}
        self._types = {value.name: _WIDENED.get(value.type) for value in self._session.get_inputs()}

    def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name.

        Integers are handed over in the width that the model wants.

        Raises:
            EvaluationError: it does not run on this feed.
        """
        try:
            given = self._fed | {name: self._fitting(name, value) for name, value in feed.items()}
            return dict(zip(self.outputs, self._session.run(None, given), strict=True))
        except Exception as error:
            raise EvaluationError(_words(error)) from error

    def _fitting(self, name: str, value: np.ndarray) -> np.ndarray:
        wanted = self._types.get(name)
        return value if wanted is None or value.dtype.kind not in "iu" else value.astype(wanted, copy=False)


def _feed_weights(model: onnx.ModelProto, weights: Weights) -> dict[str, np.ndarray]:
    """Turns the graph's references into inputs, which ONNX Runtime reads where they are, and puts the others in.

    ONNX Runtime would copy initializers, external ones too, once for each session.
    """
    fed: dict[str, np.ndarray] = {}
    inputs = {value.name for value in model.graph.input}
    kept = []
    for tensor in model.graph.initializer:
        array = weights.array(tensor) if is_reference(tensor) else None
        if array is None or array.dtype.kind not in "fiub":
            kept.append(tensor)
            continue
        fed[tensor.name] = array
        if tensor.name not in inputs:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    if fed:
        rest = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(rest)
    for tensor in tensors_of(model):
        if is_reference(tensor):
            inline(tensor, weights)
    return fed


def _with_initializers(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inputs = [value for value in model.graph.input if value.name not in values]
    del result.graph.input[:]
    result.graph.input.extend(inputs)
    result.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in values.items())
    return result


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = min(os.cpu_count() or 1, 4)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    # Nodes run in the order of the graph. By default everything that depends on no input, such as the transposition of
    # each weight, runs first and is held until it is needed.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    providers = ["CPUExecutionProvider"]
    model = _without_dropout(model)
    try:
        if model.ByteSize() < _IN_MEMORY:
            return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save_onnx(model, path)
            return onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:
        raise EvaluationError(_words(error)) from error


def _without_dropout(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every Dropout in inference form: what is random cannot be compared."""
    if not any(node.op_type == "Dropout" and len(node.input) > 2 for node in _all_nodes(model.graph)):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in _all_nodes(result.graph):
        if node.op_type == "Dropout":
            del node.input[2:]
    return result


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _all_nodes(body)


@dataclass(frozen=True)
class Piece:
    """Part of a model, between named tensors."""

    nodes: tuple[int, ...]
    """Positions of its nodes in the graph."""
    inputs: tuple[str, ...]
    """Those of the inputs offered that it reads."""
    outputs: tuple[str, ...]
    weights: tuple[str, ...]
    """Initializers that it reads."""


class Pieces:
    """Cuts pieces out of a model and runs them, in time that is linear in the pieces."""

    def __init__(self, model: onnx.ModelProto, weights: Weights | None = None) -> None:
        self.model = model
        self.weights = weights
        self._nodes = list(model.graph.node)
        self._makers = {name: position for position, node in enumerate(self._nodes) for name in node.output if name}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._reads: dict[int, list[str]] = {}

    @property
    def names(self) -> Collection[str]:
        """Names of the tensors that nodes make."""
        return self._makers.keys()

    def cut(self, inputs: Iterable[str], outputs: Sequence[str]) -> Piece:
        """The piece that makes `outputs` from `inputs`.

        Raises:
            EvaluationError: the outputs need something that is not among the inputs, such as an input of the model.
        """
        offered = set(inputs)
        wanted, seen, used, needed = list(outputs), set(), set(), set()
        while wanted:
            name = wanted.pop()
            if not name or name in seen:
                continue
            seen.add(name)
            if name in offered:
                used.add(name)
            elif name not in self._initializers:
                position = self._makers.get(name)
                if position is None:
                    raise EvaluationError(f"tensor {name!r} comes from outside the piece")
                if position not in needed:
                    needed.add(position)
                    wanted.extend(self._read(position))
        weights = tuple(sorted(name for name in seen - offered if name in self._initializers))
        return Piece(tuple(sorted(needed)), tuple(sorted(used)), tuple(outputs), weights)

    def run(
        self, pieces: Sequence[Piece], feeds: Sequence[Sequence[Mapping[str, np.ndarray]]]
    ) -> list[list[dict[str, np.ndarray]]]:
        """Runs several pieces in one session.

        Args:
            pieces: of `cut`; one may overlap another.
            feeds: for each run, for each piece its inputs by name.

        Returns:
            For each run, for each piece its outputs by name.

        Raises:
            EvaluationError: one of them does not run.
        """
        joined = onnx.ModelProto(
            ir_version=self.model.ir_version, opset_import=self.model.opset_import, functions=self.model.functions
        )
        joined.graph.name = "pieces"
        alone = len(pieces) == 1
        names = [{} if alone else self._renamed(piece, number) for number, piece in enumerate(pieces)]
        shared: dict[str, None] = {}
        for number, (piece, renamed) in enumerate(zip(pieces, names, strict=True)):
            shared.update(dict.fromkeys(piece.weights))
            for position in piece.nodes:
                node = joined.graph.node.add()
                node.CopyFrom(self._nodes[position])
                if not alone:
                    _rename(node, renamed)
            for name in piece.inputs:
                given = [feed[number][name] for feed in feeds]
                joined.graph.input.append(_common_value_info(renamed.get(name, name), given))
            joined.graph.output.extend(onnx.ValueInfoProto(name=renamed.get(name, name)) for name in piece.outputs)
        joined.graph.initializer.extend(self._initializers[name] for name in shared)
        ready = Model(joined, weights=self.weights)
        results = []
        for feed in feeds:
            made = ready(
                {
                    renamed.get(name, name): values[name]
                    for piece, renamed, values in zip(pieces, names, feed, strict=True)
                    for name in piece.inputs
                }
            )
            results.append(
                [
                    {name: made[renamed.get(name, name)] for name in piece.outputs}
                    for piece, renamed in zip(pieces, names, strict=True)
                ]
            )
        return results

    def _renamed(self, piece: Piece, number: int) -> dict[str, str]:
        made = [name for position in piece.nodes for name in self._nodes[position].output if name]
        return {name: f"{number}|{name}" for name in (*piece.inputs, *made)}

    def _read(self, position: int) -> list[str]:
        if position not in self._reads:
            self._reads[position] = _reads(self._nodes[position])
        return self._reads[position]


def run_piece(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """What the part of the model between `inputs` and `outputs` makes of these inputs.

    Raises:
        EvaluationError: there is no such part, or it does not run.
    """
    pieces = Pieces(model)
    return pieces.run([pieces.cut(inputs, outputs)], [[inputs]])[0][0]


def run_node(node: gs.Node, inputs: Sequence[np.ndarray | None], graph: gs.Graph) -> list[np.ndarray | None]:
    """Runs one node; a node that was just run is ready to run on other inputs.

    Args:
        node: without subgraphs.
        inputs: one array an input, None for one that is left out.
        graph: that the node belongs to, for its opsets.

    Returns:
        One array an output, None for one that is left out.

    Raises:
        EvaluationError: it does not run on these inputs.
    """
    if has_subgraphs(node):
        raise EvaluationError(f"{node.op} has graphs of its own")
    proto = write_node(node)
    names = [f"i{position}" if value is not None else "" for position, value in enumerate(inputs)]
    results = [f"o{position}" if tensor.name else "" for position, tensor in enumerate(node.outputs)]
    del proto.input[:], proto.output[:]
    proto.name = ""
    proto.input.extend(names)
    proto.output.extend(results)
    feed = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    given = [value_info(name, value.dtype, [None] * value.ndim) for name, value in feed.items()]
    model = model_of([proto], given, [name for name in results if name], graph)
    made = _remembered(model)(feed)
    return [made[name] if name else None for name in results]


def model_of(
    nodes: Iterable[onnx.NodeProto], inputs: Iterable[onnx.ValueInfoProto], outputs: Iterable[str], graph: gs.Graph
) -> onnx.ModelProto:
    """A model of some nodes of a graph, which says the opsets."""
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            list(nodes),
            "nodes",
            list(inputs),
            [onnx.ValueInfoProto(name=name) for name in outputs],
        ),
        opset_imports=graph.import_domains or [onnx.helper.make_opsetid("", graph.opset)],
        ir_version=min(onnx.IR_VERSION, max(graph.ir_version or 8, 8)),
    )


_ready: OrderedDict[bytes, Model] = OrderedDict()
"""Single nodes that were run lately: surgeries run the same one on many inputs."""


def _remembered(model: onnx.ModelProto) -> Model:
    key = model.SerializeToString(deterministic=True)
    if key not in _ready:
        _ready[key] = Model(model)
        if len(_ready) > _CACHED_NODES:
            _ready.popitem(last=False)
    _ready.move_to_end(key)
    return _ready[key]


def _reads(node: onnx.NodeProto) -> list[str]:
    names = list(node.input)
    for graph in _bodies(node):
        read = {name for inner in graph.node for name in _reads(inner)} | {value.name for value in graph.output}
        names.extend(sorted(read - _own(graph)))
    return names


def _own(graph: onnx.GraphProto) -> set[str]:
    """Names that a body makes itself."""
    made = {name for inner in graph.node for name in inner.output}
    return made | {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Renames tensors that a node reads and makes, in its bodies too."""
    for values in (node.input, node.output):
        for position, name in enumerate(values):
            if name in names:
                values[position] = names[name]
    for graph in _bodies(node):
        hidden = _own(graph) & names.keys()
        outer = {name: other for name, other in names.items() if name not in hidden} if hidden else names
        for inner in graph.node:
            _rename(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def _common_value_info(name: str, values: Sequence[np.ndarray]) -> onnx.ValueInfoProto:
    """A value of the type of all these arrays, with the sizes that they have in common."""
    shapes = [np.shape(value) for value in values]
    dtype = np.asarray(values[0]).dtype
    if len({len(shape) for shape in shapes}) > 1:
        return value_info(name, dtype, None)
    return value_info(name, dtype, [axis[0] if len(set(axis)) == 1 else None for axis in zip(*shapes, strict=True)])


def value_info(name: str, dtype: np.dtype, shape: Sequence[int | None] | None) -> onnx.ValueInfoProto:
    """The declaration of an input."""
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
