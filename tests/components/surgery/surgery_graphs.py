"""Small ONNX graphs, ONNX Runtime's answers to them, and what TensorRT-RTX says of them."""

import importlib.util
import io
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.core.contracts.job import Runtime
from components.surgery.evaluate import Model
from components.surgery.operate import operate
from components.surgery.proof import difference
from components.surgery.surgery import Outcome

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
RTX = Runtime.TENSORRT_RTX
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (extra tensorrt-rtx)"
)


class Verdict(NamedTuple):
    """What TensorRT-RTX made of a model: `ok`, `reject` (does not parse) or `build` (parses, does not build)."""

    stage: str
    words: str
    plugins: int = 0


def rtx(model: onnx.ModelProto) -> Verdict:
    """Parses and builds with the real tensorrt_rtx."""
    import tensorrt_rtx as trt

    words: list[str] = []

    class Log(trt.ILogger):
        def log(self, severity, message):
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                words.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        return Verdict("reject", "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:  # such as a size that is an input
            count = max(tensor.shape[0], 1) if len(tensor.shape) else 1
            profile.set_shape_input(tensor.name, *([size] * count for size in (1, 2, 3)))
            config.num_optimization_profiles or config.add_optimization_profile(profile)
        elif -1 in tuple(tensor.shape):
            shapes = [tuple(size if side == -1 else side for side in tensor.shape) for size in (1, 2, 3)]
            profile.set_shape(tensor.name, *shapes)
            config.num_optimization_profiles or config.add_optimization_profile(profile)
    plugins = sum(network.get_layer(i).type.name.startswith("PLUGIN") for i in range(network.num_layers))
    engine = builder.build_serialized_network(network, config)
    return Verdict("build" if engine is None else "ok", "; ".join(words), plugins)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[Any]]],
    outputs: dict[str, tuple[int, Sequence[Any] | None]],
    constants: dict[str, Any] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model of nodes; inputs and outputs by name as (type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def export(module: Any, *arguments: Any, opset: int = 17, **options: Any) -> onnx.ModelProto:
    """The model as torch's TorchScript exporter writes it."""
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), arguments, buffer, dynamo=False, opset_version=opset, **options)
    return onnx.load_from_string(buffer.getvalue())


def ops(model: onnx.ModelProto) -> set[str]:
    """Operators of the graph."""
    return {node.op_type for node in model.graph.node}


def surgered(model: onnx.ModelProto, target: Runtime = RTX, **options: Any) -> onnx.ModelProto:
    """The operated model; nothing may be rolled back, what was done may be done again without effect."""
    given = model.SerializeToString(deterministic=True)
    after, report = operate(model, target, **options)
    assert model.SerializeToString(deterministic=True) == given, "the given model was changed"
    assert [record for record in report.records if record.outcome is Outcome.ROLLED_BACK] == []
    again, second = operate(after, target, **options)
    assert second.done == []
    assert again is after
    onnx.checker.check_model(after, full_check=True)
    return after


def worst(before: onnx.ModelProto, after: onnx.ModelProto, feeds: Sequence[dict[str, np.ndarray]]) -> float:
    """The largest relative error over all outputs and feeds."""
    old, new = Model(before), Model(after)
    return max(difference(a[name], b[name]) for feed in feeds for a, b in [(old(feed), new(feed))] for name in a)


def assert_untouched(model: onnx.ModelProto, row: int) -> None:
    """The row leaves a graph without its pattern alone."""
    after, report = operate(model, RTX, only=[row])
    assert after is model
    assert report.records == []
