"""Row 35: DFT, which TensorRT does not have, as one MatMul with a constant matrix.

Real and imaginary parts stay together: a row of n complex numbers is 2 n numbers, and the matrix mixes both parts. A
length other than the signal's cuts or pads the matrix, not the signal. Forward and inverse, one- and two-sided, any
axis, opset 17 (axis is an attribute) and 20 (axis is an input). TensorRT takes STFT as it is.
"""

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import numpy_dtype, optional_input, scalar
from components.surgery.surgery import TOLERANCE, Change, Options, Surgery, label, refusal

MAX_MATRIX = 2**26
"""Elements of the largest matrix, 256 MiB in float32: a two-sided complex transform of 4096."""
_LOOSE = 2e-7
"""Relative error of ONNX Runtime's DFT for each sample, where the length is no power of 2; measured against NumPy's."""
_WHY = "TensorRT has no DFT"
_WAY_OUT = "fix the length of the signal, or cut it into frames (torch.stft), which TensorRT takes"


class _NotConstantError(Exception):
    """Why there is no constant matrix."""


def matches(graph: gs.Graph) -> bool:
    """Whether there is a DFT."""
    return any(node.op == "DFT" for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces each of a fixed length."""
    changes = []
    for node in [node for node in graph.nodes if node.op == "DFT" and label(node) not in options.skip]:
        try:
            changes.append(_replace(graph, node))
        except _NotConstantError as error:
            changes.append(refusal(node, f"{_WHY}; {error}", _WAY_OUT))
    return changes


def _replace(graph: gs.Graph, node: gs.Node) -> Change:
    called, x, result = label(node), node.inputs[0], node.outputs[0]
    dtype = numpy_dtype(x)
    if x.shape is None or dtype is None or x.shape[-1] not in (1, 2):
        raise _NotConstantError("whether the signal is real or complex is not known")
    rank, parts = len(x.shape), int(x.shape[-1])
    axis = _axis(graph, node) % rank
    size = x.shape[axis]
    if not isinstance(size, int | np.integer):
        raise _NotConstantError("the length of the signal is not fixed")
    inverse, one_sided = bool(node.attrs.get("inverse", 0)), bool(node.attrs.get("onesided", 0))
    if inverse and one_sided:
        raise _NotConstantError("it is inverse and one-sided at once, which has no meaning before opset 24")
    length = _length(node, int(size))
    elements = int(size) * parts * 2 * (length // 2 + 1 if one_sided else length)
    if elements > MAX_MATRIX:
        raise _NotConstantError(f"a transform of {length} needs a matrix of {4 * elements / 2**20:.0f} MiB")
    matrix = dft_matrix(int(size), length, parts, inverse=inverse, one_sided=one_sided).astype(dtype)
    emit = Emitter(graph, f"{called}/matrix")
    order = [place for place in range(rank - 1) if place != axis] + [axis, rank - 1]
    if order != list(range(rank)):
        x = emit("Transpose", x, dtype=dtype, perm=order)
    kept = [0] * (rank - 2)
    rows = emit.reshape(x, [*kept, int(size) * parts], dtype=dtype)
    made = emit("MatMul", rows, matrix, dtype=dtype)
    made = emit.reshape(made, [*kept, matrix.shape[1] // 2, 2], dtype=dtype)
    if order != list(range(rank)):
        made = emit("Transpose", made, dtype=dtype, perm=[int(place) for place in np.argsort(order)])
    emit.finish(made, result)
    what = f"MatMul with a constant matrix {list(matrix.shape)} along axis {axis}"
    border = (node.inputs[0].name,), (result.name,)
    tolerance = max(TOLERANCE, _LOOSE * length) if length & (length - 1) else TOLERANCE
    if tolerance > TOLERANCE:
        what += (
            f"; compared to {tolerance:.0e}, since ONNX Runtime's own DFT of {length}, no power of 2, is that far off"
        )
    return Change(called, _WHY, what, inputs=border[0], outputs=border[1], tolerance=tolerance)


def dft_matrix(size: int, length: int, parts: int, *, inverse: bool, one_sided: bool) -> np.ndarray:
    """The transform of `size` numbers as float64 [size * parts, frequencies * 2].

    Args:
        size: of the signal.
        length: of the transform; a longer signal is cut, a shorter one continues with zeros.
        parts: 1 for a real signal, 2 for a complex one.
        inverse: whether it is the inverse transform, scaled by 1 / length.
        one_sided: whether the frequencies end in the middle.
    """
    frequencies = length // 2 + 1 if one_sided else length
    # The product is taken modulo the length before it is an angle: exact however long the signal is.
    turns = np.outer(np.arange(size), np.arange(frequencies)) % length
    angle = (2 if inverse else -2) * np.pi * turns / length
    real, imaginary = np.cos(angle), np.sin(angle)
    if inverse:
        real, imaginary = real / length, imaginary / length
    real[length:], imaginary[length:] = 0, 0
    of_real = np.stack([real, imaginary], -1)
    of_imaginary = np.stack([-imaginary, real], -1)
    table = np.stack([of_real, of_imaginary][:parts], 1)
    return table.reshape(size * parts, frequencies * 2)


def _axis(graph: gs.Graph, node: gs.Node) -> int:
    if graph.opset < 20:
        return int(node.attrs.get("axis", 1))
    given = optional_input(node, 2)
    value = -2 if given is None else scalar(given)
    if value is None:
        raise _NotConstantError("its axis depends on the data")
    return int(value)


def _length(node: gs.Node, size: int) -> int:
    given = optional_input(node, 1)
    value = size if given is None else scalar(given)
    if value is None:
        raise _NotConstantError("its length depends on the data")
    return int(value)


SURGERY = Surgery(
    row=35, name="DFT", thread="onnx-tensorrt: No importer registered for op: DFT", matches=matches, apply=apply
)
