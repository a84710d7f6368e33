"""Row 32: MaxPool with dilations, which no TensorRT has: the largest of strided slices.

The maximum over a window is that over its rows and then over its columns, so a k x k window takes k + k slices.
Padding is the lowest number, which never wins; where the padding cannot be known, since the size is open and the
windows are rounded up, the node is named.
"""

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype
from components.surgery.pooling import PoolError, at, axes_of, padded
from components.surgery.surgery import Change, Options, Surgery, label, refusal

_WHY = "TensorRT has no dilated MaxPool"


def matches(graph: gs.Graph) -> bool:
    """Whether there is a MaxPool with dilations."""
    return any(_dilated(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each whose windows are known."""
    return [_replace(graph, node) for node in list(graph.nodes) if _dilated(node) and label(node) not in options.skip]


def _dilated(node: gs.Node) -> bool:
    # One whose indices are wanted is row 33's first.
    return node.op == "MaxPool" and len(node.outputs) == 1 and max(node.attrs.get("dilations") or [1]) > 1


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    x, result, name = node.inputs[0], node.outputs[0], label(node)
    dilations, kernels = node.attrs["dilations"], node.attrs["kernel_shape"]
    if all(kernel == 1 or dilation == 1 for kernel, dilation in zip(kernels, dilations, strict=True)):
        node.attrs["dilations"] = [1] * len(kernels)
        what = "dilations are 1, since the kernel has one place there"
        return Change(name, _WHY, what, inputs=(x.name,), outputs=(result.name,))
    try:
        axes = axes_of(node, graph)
    except PoolError as error:
        return refusal(
            node,
            f"{_WHY}; {error}",
            "fix the input's height and width (--input-shape, target.input_shape), and write pads",
        )
    emit = Emitter(graph, f"{node.name or result.name}/max_pool")
    made = padded(emit, x, axes)
    slices = 0
    for position, axis in enumerate(axes):
        places = [at(emit, made, axes, {position: place}) for place in range(axis.kernel)]
        slices += len(places)
        made = emit("Max", *places, dtype=numpy_dtype(x) or x.dtype) if len(places) > 1 else places[0]
    emit.finish(made, result)
    return Change(name, _WHY, f"the largest of {slices} strided slices", inputs=(x.name,), outputs=(result.name,))


SURGERY = Surgery(row=32, name="dilated MaxPool", thread="row 32 of the table", matches=matches, apply=apply)
