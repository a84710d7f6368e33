"""Runs models, pieces of models and single nodes in ONNX Runtime, as they stand: without optimization."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from components.core.onnx_files import save_onnx
from components.surgery.graphs import has_subgraphs

_IN_MEMORY = 2**30
"""Bytes up to which ONNX Runtime gets a model without a file."""

_WIDENED = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
"""Types of inputs that a surgery may have widened (row 10)."""


class EvaluationError(Exception):
    """ONNX Runtime cannot run it; its own words."""


class Model:
    """A model ready to run; `extra` names inner tensors to return as well."""

    def __init__(self, model: onnx.ModelProto, extra: Sequence[str] = ()) -> None:
        outputs = {output.name for output in model.graph.output}
        added = [name for name in dict.fromkeys(extra) if name not in outputs]
        if added:
            widened = onnx.ModelProto()
            widened.CopyFrom(model)
            widened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
            model = widened
        self.outputs = [output.name for output in model.graph.output]
        self._session = _session(model)
        self._types = {value.name: _WIDENED.get(value.type) for value in self._session.get_inputs()}

    def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name.

        Integers are handed over in the width that the model wants.

        Raises:
            EvaluationError: it does not run on this feed.
        """
        try:
            given = {name: self._fitting(name, value) for name, value in feed.items()}
            return dict(zip(self.outputs, self._session.run(None, given), strict=True))
        except Exception as error:
            raise EvaluationError(_words(error)) from error

    def _fitting(self, name: str, value: np.ndarray) -> np.ndarray:
        wanted = self._types.get(name)
        return value if wanted is None or value.dtype.kind not in "iu" else value.astype(wanted, copy=False)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = min(os.cpu_count() or 1, 4)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    try:
        if model.ByteSize() < _IN_MEMORY:
            return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save_onnx(model, path)
            return onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:
        raise EvaluationError(_words(error)) from error


def piece(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> tuple[onnx.ModelProto, set[str]]:
    """The part of a model that makes `outputs` from `inputs`.

    Returns:
        The part as a model, and the names in `inputs` that it reads.

    Raises:
        EvaluationError: the outputs need something that is not among the inputs, such as an input of the whole model.
    """
    makers = {name: node for node in model.graph.node for name in node.output if name}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    wanted, seen, used, needed = list(outputs), set(inputs), set(), set()
    while wanted:
        name = wanted.pop()
        if name in inputs:
            used.add(name)
        if not name or name in seen:
            continue
        seen.add(name)
        if name in weights:
            continue
        if name not in makers:
            raise EvaluationError(f"tensor {name!r} comes from outside the piece")
        needed.add(id(makers[name]))
        wanted.extend(_reads(makers[name]))
    graph = onnx.helper.make_graph(
        [node for node in model.graph.node if id(node) in needed],
        "piece",
        [_value_info(name, inputs[name]) for name in inputs if name in used],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [weights[name] for name in seen & set(weights)],
    )
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    part.graph.CopyFrom(graph)
    return part, used


def run_piece(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """What the part of the model between `inputs` and `outputs` makes of these inputs.

    Raises:
        EvaluationError: there is no such part, or it does not run.
    """
    part, used = piece(model, inputs, outputs)
    return Model(part)({name: inputs[name] for name in used})


def run_node(node: gs.Node, inputs: Sequence[np.ndarray | None], graph: gs.Graph) -> list[np.ndarray | None]:
    """Runs one node.

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
    proto = onnx.NodeProto()
    proto.CopyFrom(gs.exporters.onnx_exporter.OnnxExporter.export_node(node))
    names = [f"i{position}" if value is not None else "" for position, value in enumerate(inputs)]
    results = [f"o{position}" if tensor.name else "" for position, tensor in enumerate(node.outputs)]
    del proto.input[:], proto.output[:]
    proto.input.extend(names)
    proto.output.extend(results)
    feed = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    opsets = graph.import_domains or [onnx.helper.make_opsetid("", graph.opset)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [proto],
            "node",
            [_value_info(name, value) for name, value in feed.items()],
            [onnx.ValueInfoProto(name=name) for name in results if name],
        ),
        opset_imports=opsets,
        ir_version=min(onnx.IR_VERSION, max(graph.ir_version or 8, 8)),
    )
    made = Model(model)(feed)
    return [made[name] if name else None for name in results]


def _reads(node: onnx.NodeProto) -> list[str]:
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            made = {name for inner in graph.node for name in inner.output}
            made |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            read = {name for inner in graph.node for name in _reads(inner)} | {value.name for value in graph.output}
            names.extend(read - made)
    return names


def _value_info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype), np.shape(value)
    )


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
