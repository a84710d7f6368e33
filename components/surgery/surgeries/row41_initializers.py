"""Row 41: initializers as graph inputs or not, and old IR and opset versions (onnx #2417, onnx-tensorrt #302).

Before IR version 4 every initializer had to be listed among the graph's inputs, later it must not be for parsers to
take it as a constant. Files of both kinds go around, and tools crash on either. Here initializers leave the inputs,
the IR becomes one in which that is right, and the opset is raised to what the other surgeries and TensorRT need.
"""

from collections.abc import Sequence

import onnx
import onnx_graphsurgeon as gs

from components.surgery.reading import read_graph
from components.surgery.sorting import is_body
from components.surgery.surgery import EVERY_TARGET, Change, Options, Outcome, Surgery
from components.surgery.weights import is_reference
from components.surgery.writing import write_graph

IR_VERSION = 8
"""Oldest IR version that is written; later ones are kept."""
OPSET = 17
"""Opset that older models are raised to: it has GridSample (16) and LayerNormalization (17)."""
_OLDEST = 16


def matches(graph: gs.Graph) -> bool:
    """Whether IR or opset are old, or a graph input has an initializer or no consumer's use."""
    return not is_body(graph) and (_old_ir(graph) or _shadowed(graph) != [] or graph.opset < _OLDEST)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Cleans the inputs and raises the versions."""
    changes: list[Change] = []
    shadowed = _shadowed(graph)
    if shadowed:
        graph.inputs = [tensor for tensor in graph.inputs if not isinstance(tensor, gs.Constant)]
        why = "initializers among the graph's inputs are not taken as constants"
        changes.append(
            Change(node="graph inputs", why=why, what=f"{len(shadowed)} initializers are no inputs any more")
        )
    if _old_ir(graph):
        why = f"IR version {graph.ir_version} wants every initializer among the inputs, which newer tools refuse"
        graph.ir_version = IR_VERSION
        changes.append(Change(node="IR version", why=why, what=f"raised to {IR_VERSION}"))
    if graph.opset < _OLDEST and "opset" not in options.skip:
        changes.append(raise_opset(graph))
    return changes


def _old_ir(graph: gs.Graph) -> bool:
    return graph.ir_version is not None and graph.ir_version < IR_VERSION


def _shadowed(graph: gs.Graph) -> list[str]:
    return [tensor.name for tensor in graph.inputs if isinstance(tensor, gs.Constant)]


def raise_opset(graph: gs.Graph) -> Change:
    """Converts the graph to a newer opset, or says why that cannot be."""
    given = graph.opset
    why = f"opset {given} lacks operators that other surgeries and TensorRT need"
    try:
        raised = _converted(graph)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        what = f"onnx's converter cannot raise it ({words}); export the model again with opset {OPSET}"
        return Change(node="opset", why=why, what=what, outcome=Outcome.REFUSED)
    graph.nodes = raised.nodes
    graph.inputs, graph.outputs = raised.inputs, raised.outputs
    graph.opset, graph.import_domains = raised.opset, raised.import_domains
    return Change(node="opset", why=why, what=f"raised from {given} to {OPSET}")


def _converted(graph: gs.Graph) -> gs.Graph:
    """The graph in the new opset; large weights, which the converter would copy, wait outside as inputs."""
    weights = vars(graph).get("weights")
    model = write_graph(graph, weights)
    given = [value.name for value in model.graph.input]
    held = {tensor.name: tensor for tensor in model.graph.initializer if is_reference(tensor)}
    without = onnx.ModelProto()
    without.CopyFrom(model)
    del without.graph.initializer[:]
    without.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in held)
    without.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        for name, tensor in held.items()
        if name not in given
    )
    converted = onnx.version_converter.convert_version(without, OPSET)
    inputs = {value.name: value for value in converted.graph.input}
    del converted.graph.input[:]
    converted.graph.input.extend(inputs[name] for name in given)
    converted.graph.initializer.extend(held.values())
    return read_graph(converted, weights)


SURGERY = Surgery(
    row=41,
    name="initializers, IR and opset",
    thread="onnx #2417, onnx-tensorrt #302",
    matches=matches,
    apply=apply,
    targets=EVERY_TARGET,
)
