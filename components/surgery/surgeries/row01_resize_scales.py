"""Row 1: Resize whose scales or sizes are computed from shapes (onnx-tensorrt #361, TensorRT #2803).

Constants behind Identity, Constant, Concat or Cast fold by themselves. What folding cannot see is a size computed
from a shape that stays open, as in ``Concat(Shape(x)[:2], Floor(2 * Shape(x)[2:]))``. Its subgraph is run on several
shapes; if the size is always an exact multiple of the input's, the multiple becomes the scales, as an initializer.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.evaluate import EvaluationError, run_node
from components.surgery.graphs import constant, has_subgraphs, optional_input
from components.surgery.surgery import EVERY_TARGET, Change, Options, Surgery, label, refusal

_PROBES = ((1, 37, 53), (2, 64, 96), (3, 51, 20), (1, 7, 11), (5, 16, 9), (2, 101, 255))
"""Batch and two sides: odd and even, so that a rounded multiple does not pass for an exact one."""
_MAX_NODES = 64


def matches(graph: gs.Graph) -> bool:
    """Whether a Resize has scales or sizes that are no initializer."""
    return any(_computed(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Gives each of them constant scales, where they are constant."""
    changes = []
    for node in graph.nodes:
        if not _computed(node) or label(node) in options.skip:
            continue
        scales = _constant_scales(node, graph)
        if scales is None:
            way_out = "fix the input's height and width (target.input_shape), or resize by a constant factor"
            changes.append(refusal(node, "its size is computed at run time and is no constant multiple", way_out))
            continue
        emit = Emitter(graph, f"{node.name or node.outputs[0].name}/scales")
        roi = node.inputs[1] if len(node.inputs) > 1 else gs.Variable.empty()
        node.inputs = [node.inputs[0], roi, emit.constant(scales)]
        numbers = ", ".join(f"{scale:g}" for scale in scales)
        why = "the size is computed from a shape that is not fixed, which older parsers refuse"
        changes.append(Change(node=label(node), why=why, what=f"scales are the initializer [{numbers}]"))
    return changes


def _computed(node: gs.Node) -> bool:
    if node.op != "Resize":
        return False
    given = _size_input(node)
    return given is not None and not isinstance(given, gs.Constant)


def _size_input(node: gs.Node) -> gs.Tensor | None:
    sizes = optional_input(node, 3)
    return sizes if sizes is not None else optional_input(node, 2)


def _constant_scales(node: gs.Node, graph: gs.Graph) -> np.ndarray | None:
    """The scales [rank] that every probed shape agrees on."""
    x, given = node.inputs[0], _size_input(node)
    if x.shape is None or given is None or "axes" in node.attrs or node.attrs.get("keep_aspect_ratio_policy"):
        return None
    found = []
    for probe in _PROBES:
        shape = _probe_shape(x.shape, probe)
        try:
            made = _evaluate(given, x, shape, graph, {}, [_MAX_NODES])
        except EvaluationError:
            return None
        if made.shape != (len(shape),):
            return None
        found.append(made / np.array(shape) if optional_input(node, 3) is not None else made)
    scales = np.asarray(found[0], np.float32)
    exact = all(np.array_equal(scales, np.asarray(other, np.float32)) for other in found)
    return scales if exact else None


def _probe_shape(shape: Sequence[object], probe: tuple[int, int, int]) -> tuple[int, ...]:
    sizes = (probe[0], 4, *(probe[1:] * len(shape)))
    return tuple(
        int(size) if isinstance(size, int | np.integer) else sizes[position] for position, size in enumerate(shape)
    )


def _evaluate(
    tensor: gs.Tensor,
    x: gs.Tensor,
    shape: tuple[int, ...],
    graph: gs.Graph,
    known: dict[str, np.ndarray],
    left: list[int],
) -> np.ndarray:
    """Runs what leads from the shape of `x` to `tensor`."""
    values = constant(tensor)
    if values is not None:
        return values
    if tensor.name in known:
        return known[tensor.name]
    if not tensor.inputs:
        raise EvaluationError(f"{tensor.name} depends on the values of an input")
    node = tensor.inputs[0]
    left[0] -= 1
    if left[0] < 0 or has_subgraphs(node) or not node.inputs:
        raise EvaluationError(f"{tensor.name} is more than shape arithmetic")
    if node.op == "Shape":
        if node.inputs[0] is not x and not _same_shape(node.inputs[0], x):
            raise EvaluationError(f"{tensor.name} depends on another shape")
        return np.array(shape, np.int64)[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
    inputs = [None if i.is_empty() else _evaluate(i, x, shape, graph, known, left) for i in node.inputs]
    for output, value in zip(node.outputs, run_node(node, inputs, graph), strict=True):
        if value is not None:
            known[output.name] = value
    return known[tensor.name]


def _same_shape(a: gs.Tensor, b: gs.Tensor) -> bool:
    """Whether both shapes are known to be equal: numbers, or dimensions of one name."""
    return a.shape is not None and a.shape == b.shape and None not in a.shape


SURGERY = Surgery(
    row=1,
    name="Resize scales",
    thread="onnx-tensorrt #361, TensorRT #2803",
    matches=matches,
    apply=apply,
    targets=EVERY_TARGET,
)
