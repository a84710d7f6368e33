"""Row 26: INT32 numbers through DequantizeLinear, as ONNX Runtime's quantizer writes every bias.

TensorRT takes 4 and 8 bits there: "input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8". It adds
biases in FP32 anyway, so a constant becomes the FP32 numbers that it stands for. Numbers that are no constant, such as
the sums of an integer product, are multiplied by their scale.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input
from components.surgery.quantizers import DEQUANTIZE, dequantized, in_floats, quantizer
from components.surgery.surgery import Change, Options, Surgery, label

_WHY = "TensorRT dequantizes 4 and 8 bits, not INT32"


def matches(graph: gs.Graph) -> bool:
    """Whether a DequantizeLinear reads INT32."""
    return any(_reads_int32(node) for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Writes the numbers in the scale's floating-point type."""
    changes = []
    outputs = {id(tensor) for tensor in graph.outputs}
    for node in list(graph.nodes):
        if not _reads_int32(node) or label(node) in options.skip:
            continue
        name, reads, result, source = label(node), _read(node), node.outputs[0], node.inputs[0]
        q, by = constant(source), quantizer(node)
        emit = Emitter(graph, f"{node.name or result.name}/float")
        if q is None or by is None:
            made = in_floats(emit, source, node.inputs[1], optional_input(node, 2), int(node.attrs.get("axis", 1)))
            emit.finish(made, result)
            what = "multiplied by its scale in floating point"
        elif id(result) in outputs:
            emit.finish(emit("Identity", dequantized(q, by), dtype=result.dtype), result)
            what = "a floating-point constant"
        else:
            node.outputs.clear()
            result.to_constant(dequantized(q, by))
            what = f"a floating-point constant of {q.size} numbers"
        changes.append(Change(name, _WHY, what, inputs=reads, outputs=(result.name,)))
    return changes


def _read(node: gs.Node) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in node.inputs if isinstance(tensor, gs.Variable) and not tensor.is_empty())


def _reads_int32(node: gs.Node) -> bool:
    return node.op == DEQUANTIZE and numpy_dtype(node.inputs[0]) == np.dtype(np.int32)


SURGERY = Surgery(
    row=26,
    name="INT32 bias",
    thread="onnxruntime.quantization's default",
    matches=matches,
    apply=apply,
)
