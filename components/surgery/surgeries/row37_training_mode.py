"""Row 37: Dropout and BatchNormalization in training mode, from a model that was exported without ``eval()``.

* Dropout is random in training; its inference form passes its input on, and its mask is all ones. The comparison is
  with that form too, since random numbers cannot be compared.
* BatchNormalization in training mode normalizes by the statistics of the batch. That is no accident everywhere
  (``track_running_stats=False``), so the numbers stay: it is written out in plain operators. Where running statistics
  were meant, only the exporter can know, and the report says what to do.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, optional_input
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_EPSILON, _MOMENTUM = 1e-5, 0.9
_EVAL = "export the model after model.eval() (torch: training=TrainingMode.EVAL)"


def matches(graph: gs.Graph) -> bool:
    """Whether a node is in training mode."""
    return any(_random(node) or _of_batch(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Writes inference forms."""
    changes = []
    for node in list(graph.nodes):
        if label(node) in options.skip:
            continue
        if _random(node):
            changes.append(_dropout(graph, node))
        elif _of_batch(node):
            changes.append(_batch_normalization(graph, node))
    return changes


def _random(node: gs.Node) -> bool:
    training = optional_input(node, 2) if node.op == "Dropout" else None
    if training is None:
        return False
    values = constant(training)
    return values is None or bool(values.any())


def _of_batch(node: gs.Node) -> bool:
    return node.op == "BatchNormalization" and bool(node.attrs.get("training_mode", 0))


def _dropout(graph: gs.Graph, node: gs.Node) -> Change:
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/inference")
    name, x, results = label(node), node.inputs[0], list(node.outputs)
    emit.finish(emit("Identity", x, dtype=x.dtype), results[0])
    made = [results[0].name]
    if len(results) > 1 and (results[1].outputs or any(results[1] is output for output in graph.outputs)):
        ones = gs.Constant(f"{emit.prefix}/true", np.array([True]))
        mask = emit("ConstantOfShape", emit("Shape", x, dtype=np.int64), dtype=bool, value=ones)
        emit.finish(mask, results[1])
        made.append(results[1].name)
    what = f"passes its input on, compared with the inference form; {_EVAL}"
    return Change(name, "Dropout in training mode is random", what, inputs=(x.name,), outputs=tuple(made))


def _batch_normalization(graph: gs.Graph, node: gs.Node) -> Change:
    x = node.inputs[0]
    if x.shape is None:
        return refusal(node, "BatchNormalization in training mode, of a tensor of unknown rank", _EVAL)
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/batch_statistics")
    name, rank, dtype = label(node), len(x.shape), x.dtype
    axes = [axis for axis in range(rank) if axis != 1]
    across = [-1 if axis == 1 else 1 for axis in range(rank)]
    mean = emit.reduce("ReduceMean", x, axes, keepdims=True, dtype=dtype)
    centred = emit("Sub", x, mean, dtype=dtype)
    squares = emit("Mul", centred, centred, dtype=dtype)
    variance = emit.reduce("ReduceMean", squares, axes, keepdims=True, dtype=dtype)
    epsilon = np.array(node.attrs.get("epsilon", _EPSILON), dtype)
    deviation = emit("Sqrt", emit("Add", variance, epsilon, dtype=dtype), dtype=dtype)
    normal = emit("Div", centred, deviation, dtype=dtype)
    scale, bias = (emit.reshape(tensor, across, dtype=dtype) for tensor in node.inputs[1:3])
    y = emit("Add", emit("Mul", normal, scale, dtype=dtype), bias, dtype=dtype)
    results, running = list(node.outputs), list(node.inputs[3:5])
    reads = tuple(t.name for t in node.inputs if isinstance(t, gs.Variable))
    momentum = float(node.attrs.get("momentum", _MOMENTUM))
    emit.finish(y, results[0])
    made = [results[0].name]
    for result, old, new in zip(results[1:3], running, (mean, variance), strict=False):
        if result.outputs or any(result is output for output in graph.outputs):
            emit.finish(_moved(emit, old, emit.reshape(new, (-1,), dtype=dtype), momentum), result)
            made.append(result.name)
    why = "BatchNormalization in training mode normalizes by the batch"
    what = f"written in plain operators, as the graph says; for the running statistics {_EVAL}"
    return Change(name, why, what, inputs=reads, outputs=tuple(made))


def _moved(emit: Emitter, old: gs.Tensor, new: gs.Variable, momentum: float) -> gs.Variable:
    """A running statistic after this batch."""
    dtype = new.dtype
    kept = emit("Mul", old, np.array(momentum, dtype), dtype=dtype)
    return emit("Add", kept, emit("Mul", new, np.array(1 - momentum, dtype), dtype=dtype), dtype=dtype)


SURGERY = Surgery(
    row=37,
    name="training mode",
    thread="torch.onnx: TrainingMode",
    matches=matches,
    apply=apply,
)
