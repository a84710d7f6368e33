"""Row 36: FP16 and FP32 operands at one operator, as half-converted models have them.

ONNX wants one type for all operands that share a type variable, and TensorRT refuses others ("must have same input
types"). Types are followed through the graph by the operators' own schemas. Constants take the type of what they meet,
since they are what a converter forgot; where computed tensors meet, the wider type wins, as in NumPy and torch, and
what follows computes in it until a Cast. Outputs of the graph keep their declared types.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, has_subgraphs, numpy_dtype
from components.surgery.surgery import Change, Options, Surgery, label

_FLOATS = tuple(np.dtype(dtype) for dtype in (np.float16, np.float32, np.float64))
"""From narrow to wide."""
_HALF_MAX = 65504
Types = dict[int, np.dtype]
"""Types of tensors by id, as far as they differ from what the graph says."""


def matches(graph: gs.Graph) -> bool:
    """Whether operands of different precision meet."""
    present = {numpy_dtype(tensor) for node in graph.nodes for tensor in (*node.inputs, *node.outputs)}
    if len(present & set(_FLOATS)) < 2:
        return False
    graph.toposort()
    types: Types = {}
    for node in graph.nodes:
        groups = _groups(node, graph, types)
        if any(len({dtype for _, dtype in group}) > 1 for group in groups.values()):
            return True
        _note_outputs(node, graph, types, {name: group[0][1] for name, group in groups.items()})
    return any(_type(tensor, types) != numpy_dtype(tensor) for tensor in graph.outputs)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Casts to the type that each operator settles on, in topological order."""
    changes = []
    types: Types = {}
    casts: dict[tuple[int, np.dtype], gs.Tensor] = {}
    graph.toposort()
    for node in list(graph.nodes):
        groups = _groups(node, graph, types)
        settled = {name: _settle(node, group) for name, group in groups.items()}
        mixed = [name for name, group in groups.items() if len({dtype for _, dtype in group}) > 1]
        if mixed and label(node) not in options.skip:
            changes.append(_cast_operands(graph, node, groups, settled, mixed, casts))
        _note_outputs(node, graph, types, settled)
    for position, tensor in enumerate(graph.outputs):
        declared, made = numpy_dtype(tensor), _type(tensor, types)
        if declared is None or declared == made or not tensor.inputs:
            continue
        changes.append(_keep_declared(graph, position, declared, made))
    return changes


@lru_cache(maxsize=512)
def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return None


def _variables(node: gs.Node, graph: gs.Graph) -> Iterator[tuple[int, str]]:
    """(input, type variable) of each input whose type is a variable of the schema."""
    schema = _schema(node.op, graph.opset) if node.domain in (None, "", "ai.onnx") else None
    if schema is None or has_subgraphs(node):
        return
    variables = {constraint.type_param_str for constraint in schema.type_constraints}
    for position, tensor in enumerate(node.inputs):
        formal = schema.inputs[min(position, len(schema.inputs) - 1)] if schema.inputs else None
        if formal is None or tensor.is_empty() or formal.type_str not in variables:
            continue
        if formal.option == onnx.defs.OpSchema.FormalParameterOption.Variadic and not formal.is_homogeneous:
            continue
        yield position, formal.type_str


def _groups(node: gs.Node, graph: gs.Graph, types: Types) -> dict[str, list[tuple[int, np.dtype]]]:
    """Inputs of floating-point type and what type each has, by type variable."""
    groups: dict[str, list[tuple[int, np.dtype]]] = {}
    for position, variable in _variables(node, graph):
        dtype = _type(node.inputs[position], types)
        if dtype in _FLOATS:
            groups.setdefault(variable, []).append((position, dtype))
    return groups


def _type(tensor: gs.Tensor, types: Types) -> np.dtype | None:
    return types.get(id(tensor), numpy_dtype(tensor))


def _settle(node: gs.Node, group: list[tuple[int, np.dtype]]) -> np.dtype:
    """The type for all operands of a group."""
    computed = [dtype for position, dtype in group if isinstance(node.inputs[position], gs.Variable)]
    chosen = max(computed or [dtype for _, dtype in group], key=_FLOATS.index)
    if chosen != _FLOATS[0]:
        return chosen
    constants = [constant(node.inputs[position]) for position, _ in group]
    too_large = any(_exceeds_half(values) for values in constants if values is not None)
    return max((dtype for _, dtype in group), key=_FLOATS.index) if too_large else chosen


def _exceeds_half(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and np.abs(finite.astype(np.float64)).max() > _HALF_MAX)


def _note_outputs(node: gs.Node, graph: gs.Graph, types: Types, settled: dict[str, np.dtype]) -> None:
    """Outputs whose type follows from the operands', where the graph says otherwise."""
    schema = _schema(node.op, graph.opset) if node.domain in (None, "", "ai.onnx") else None
    if schema is None or has_subgraphs(node) or not schema.outputs:
        return
    for position, tensor in enumerate(node.outputs):
        formal = schema.outputs[min(position, len(schema.outputs) - 1)]
        dtype = settled.get(formal.type_str)
        if dtype is not None and numpy_dtype(tensor) != dtype:
            types[id(tensor)] = dtype


def _cast_operands(
    graph: gs.Graph,
    node: gs.Node,
    groups: dict[str, list[tuple[int, np.dtype]]],
    settled: dict[str, np.dtype],
    mixed: list[str],
    casts: dict[tuple[int, np.dtype], gs.Tensor],
) -> Change:
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/operands")
    words = []
    for name in mixed:
        dtype = settled[name]
        for position, given in groups[name]:
            tensor = node.inputs[position]
            if given == dtype:
                continue
            key = (id(tensor), dtype)
            if key not in casts:
                values = constant(tensor)
                casts[key] = emit.constant(values.astype(dtype)) if values is not None else emit.cast(tensor, dtype)
            node.inputs[position] = casts[key]
            words.append(f"{'constant' if isinstance(tensor, gs.Constant) else 'operand'} {tensor.name!r} from {given}")
    kinds = ", ".join(sorted({str(settled[name]) for name in mixed}))
    why = f"{node.op} has operands of different precision, which TensorRT and ONNX refuse"
    return Change(label(node), why, f"{', '.join(words)} to {kinds}")


def _keep_declared(graph: gs.Graph, position: int, declared: np.dtype, made: np.dtype | None) -> Change:
    tensor = graph.outputs[position]
    emit = Emitter(graph, f"{tensor.name}/declared")
    inner = gs.Variable(f"{tensor.name}/{made}", dtype=made, shape=tensor.shape)
    producer = tensor.inputs[0]
    producer.outputs = [inner if output is tensor else output for output in producer.outputs]
    for reader in list(tensor.outputs):
        reader.inputs = [inner if other is tensor else other for other in reader.inputs]
    emit.finish(emit.cast(inner, declared), tensor)
    why = f"the graph declares this output as {declared}, and computes {made}"
    return Change(tensor.name, why, f"cast to {declared}")


SURGERY = Surgery(
    row=36,
    name="mixed precision",
    thread="TensorRT's type rules; onnxconverter-common's float16",
    matches=matches,
    apply=apply,
)
