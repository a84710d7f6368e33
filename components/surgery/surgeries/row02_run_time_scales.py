"""Row 2: Resize with scales that are only known at run time: sizes take their place.

A size is a shape, which TensorRT computes beforehand from shapes and integer inputs; scales it takes only if they name
every axis. The sizes are computed as ONNX does, rounded down. Scales that come from a float input or from activations
cannot be: an engine's shapes do not depend on floats.

Where scale x size is a whole number the result is the same. Where it is not, coordinates go by the rounded size, as
they do in TensorRT for scales at run time too.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import optional_input
from components.surgery.shape_probes import float_source
from components.surgery.surgery import Change, Options, Surgery, label, refusal


def matches(graph: gs.Graph) -> bool:
    """Whether a Resize has scales that are no initializer."""
    return any(_computed(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Gives each of them sizes."""
    found = [node for node in graph.nodes if _computed(node) and label(node) not in options.skip]
    return [_replace(graph, node) for node in found]


def _computed(node: gs.Node) -> bool:
    scales = optional_input(node, 2) if node.op == "Resize" and optional_input(node, 3) is None else None
    return scales is not None and not isinstance(scales, gs.Constant)


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    x, scales = node.inputs[0], node.inputs[2]
    source = float_source(scales)
    if source:
        why = f"its scales depend on {source!r}, and the shapes of an engine cannot depend on floats"
        return refusal(node, why, "make the size an INT64 input of the model, or the scales a constant")
    emit = Emitter(graph, f"{node.name or node.outputs[0].name}/sizes")
    shape: gs.Tensor = emit("Shape", x, dtype=np.int64)
    if "axes" in node.attrs:
        shape = emit("Gather", shape, np.array(node.attrs["axes"], np.int64), dtype=np.int64, axis=0)
    product = emit("Mul", emit.cast(shape, np.float32), scales)
    sizes = emit.cast(emit("Floor", product), np.int64)
    roi = node.inputs[1]
    node.inputs = [x, roi, gs.Variable.empty(), sizes]
    return Change(
        label(node),
        "its scales are computed at run time, which TensorRT does not take in every form",
        "sizes are computed from them and the input's shape, rounded down; the same where they are whole numbers",
        inputs=(x.name, scales.name),
        outputs=(node.outputs[0].name,),
    )


SURGERY = Surgery(row=2, name="Resize run-time scales", thread="TensorRT #2803", matches=matches, apply=apply)
