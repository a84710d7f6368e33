"""Row 38: operators that TensorRT does not have and that are rare enough to be forgotten.

Bitwise operators become arithmetic, Col2Im a ConvTranspose, AffineGrid a MatMul, Compress a Gather (of a constant
condition, else NonZero and Gather, which is row 15's), Det of up to 3 x 3 its formula, and what is known of an Optional
goes away. The others get a diagnosis.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter
from components.surgery.graphs import constant, numpy_dtype, optional_input, static_shape
from components.surgery.surgeries import bitwise
from components.surgery.surgery import TOLERANCE, Change, Options, Surgery, label, refusal

_WAYS_OUT = {
    "Unique": "how many values there are depends on the data; count them over a fixed range (one-hot and ReduceSum) or "
    "do it after the engine",
    "StringNormalizer": "an engine has no strings; normalize them before it",
    "StringConcat": "an engine has no strings; join them before or after it",
    "StringSplit": "an engine has no strings; split them before it",
    "RegexFullMatch": "an engine has no strings; match them before it",
    "TfIdfVectorizer": "count n-grams before the engine, and give it the vector",
    "Optional": "export the model with the input that is meant, or without it",
    "OptionalGetElement": "export the model with the input that is meant, or without it",
    "OptionalHasElement": "export the model with the input that is meant, or without it",
    "Det": "write the determinant of larger matrices as a product after torch.linalg.lu, outside of the engine",
    "BitShift": "use int32 numbers, or a product with powers of 2",
    "Col2Im": "fix the shape of the image and the blocks when exporting",
    "AffineGrid": "fix the size of the grid when exporting",
}
_DEFAULT_WAY_OUT = "do it before or after the engine"


class _LeftError(Exception):
    """Why a node is left."""


Maker = Callable[[Emitter, gs.Node], tuple[gs.Tensor, str]]


def matches(graph: gs.Graph) -> bool:
    """Whether there is one of the operators."""
    return any(node.op in _KNOWN for node in graph.nodes)


def apply(graph: gs.Graph, options: Options) -> Sequence[Change]:
    """Replaces those that have a plain form, and names the others."""
    changes: list[Change] = []
    wide: dict[int, gs.Tensor] = {}
    graph.toposort()
    for node in [node for node in graph.nodes if node.op in _KNOWN and label(node) not in options.skip]:
        before = len(graph.nodes)
        try:
            if node.op in bitwise.OPERATORS:
                changes.append(_replace_bitwise(graph, node, wide))
            elif node.op in _MAKERS:
                changes.append(_replace(graph, node, _MAKERS[node.op]))
            else:
                raise _LeftError("")
        except (_LeftError, bitwise.UnknownWidthError) as error:
            for made in graph.nodes[before:]:
                made.inputs.clear()
            del graph.nodes[before:]
            why = f"TensorRT has no {node.op}" + (f"; {error}" if str(error) else "")
            changes.append(refusal(node, why, _WAYS_OUT.get(node.op, _DEFAULT_WAY_OUT)))
    return changes


def _replace(graph: gs.Graph, node: gs.Node, maker: Maker) -> Change:
    called, result = label(node), node.outputs[0]
    emit = Emitter(graph, f"{called}/plain")
    made, what = maker(emit, node)
    inputs = tuple(dict.fromkeys(t.name for t in node.inputs if not t.is_empty() and constant(t) is None))
    if not made.inputs or made.inputs[0] not in graph.nodes[-1:]:
        made = emit("Identity", made, dtype=made.dtype)
    emit.finish(made, result)
    comparable = node.op not in ("Optional", "OptionalGetElement", "OptionalHasElement")
    tolerance = TOLERANCE
    if node.op == "Col2Im" and static_shape(node.inputs[1]) == (1,):
        what += "; not compared, since ONNX Runtime mixes up the channels of one-dimensional blocks"
        tolerance = np.inf
    return Change(
        called,
        f"TensorRT has no {node.op}",
        what,
        inputs=inputs if comparable else (),
        outputs=(result.name,) if comparable else (),
        tolerance=tolerance,
    )


def _replace_bitwise(graph: gs.Graph, node: gs.Node, wide: dict[int, gs.Tensor]) -> Change:
    """`wide`: results so far in the type they were worked in, by the id of the tensor that they stand for."""
    called, result, dtype = label(node), node.outputs[0], numpy_dtype(node.inputs[0])
    width = bitwise.width_of(node)
    emit = Emitter(graph, f"{called}/arithmetic")
    given = [
        wide.get(id(tensor)) or _before_cast(emit, tensor, width.work) or bitwise.working(emit, tensor, width)
        for tensor in node.inputs
    ]
    inputs = tuple(dict.fromkeys(tensor.name for tensor in node.inputs if constant(tensor) is None))
    made = bitwise.emit_bitwise(emit, node, given)
    wide[id(result)] = made
    if dtype == width.work:
        made = emit("Identity", made, dtype=dtype)
    else:
        # A type that TensorRT may not have: whoever casts it on takes what it was made of.
        for reader in list(result.outputs):
            if reader.op == "Cast" and numpy_dtype(reader.outputs[0]) in (np.int32, np.int64, np.float32):
                reader.inputs = [wide[id(result)]]
        made = emit.cast(made, dtype)
    emit.finish(made, result)
    what = f"arithmetic of {width.bits} bits in {width.work}"
    return Change(called, f"TensorRT has no {node.op}", what, inputs=inputs, outputs=(result.name,))


def _before_cast(emit: Emitter, tensor: gs.Tensor, work: np.dtype) -> gs.Tensor | None:
    """What an unsigned tensor was cast from, in the type that is worked in."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.op != "Cast" or numpy_dtype(tensor) != np.uint32:
        return None
    source = node.inputs[0]
    if numpy_dtype(source) not in (np.int32, np.int64):
        return None
    whole = source if numpy_dtype(source) == work else emit.cast(source, work)
    return emit("Mod", whole, np.array(2**32, work), dtype=work)


def _col2im(emit: Emitter, node: gs.Node) -> tuple[gs.Tensor, str]:
    x, image, block = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[2])
    if image is None or block is None or x.shape is None or not isinstance(x.shape[1], int | np.integer):
        raise _LeftError("the shape of its image or blocks is not fixed")
    count = len(image)
    pads = np.array(node.attrs.get("pads", [0] * 2 * count))
    strides, dilations = (np.array(node.attrs.get(name, [1] * count)) for name in ("strides", "dilations"))
    extent = dilations * (block - 1) + 1
    places = (image + pads[:count] + pads[count:] - extent) // strides + 1
    covered = (places - 1) * strides + extent - pads[:count] - pads[count:]
    size, channels = int(np.prod(block)), int(x.shape[1]) // int(np.prod(block))
    dtype = numpy_dtype(x)
    # Dilation goes into the kernel: TensorRT has no deconvolution with strides and dilation.
    one_hot = np.zeros((size, 1, *extent), dtype)
    one_hot[(slice(None), slice(None), *(slice(None, None, int(step)) for step in dilations))] = np.eye(
        size, dtype=dtype
    ).reshape(size, 1, *block)
    columns = emit.reshape(x, [-1, size, *(int(side) for side in places)], dtype=dtype)
    summed = emit(
        "ConvTranspose",
        columns,
        one_hot,
        dtype=dtype,
        kernel_shape=[int(side) for side in extent],
        strides=[int(side) for side in strides],
        pads=[int(side) for side in pads],
        output_padding=[int(side) for side in image - covered],
    )
    made = emit.reshape(summed, [-1, channels, *(int(side) for side in image)], dtype=dtype)
    return made, f"ConvTranspose with kernels of one 1 each: {image.tolist()} from blocks of {block.tolist()}"


def _affine_grid(emit: Emitter, node: gs.Node) -> tuple[gs.Tensor, str]:
    theta, size = node.inputs[0], constant(node.inputs[1])
    if size is None:
        raise _LeftError("the size of the grid is not fixed")
    dtype, spatial = numpy_dtype(theta), [int(side) for side in size[2:]]
    corners = bool(node.attrs.get("align_corners", 0))
    axes = [_coordinates(side, corners=corners) for side in spatial]
    # x first: the last axis of the image.
    grid = [axis.reshape(-1) for axis in reversed(np.meshgrid(*axes, indexing="ij"))]
    base = np.stack([*grid, np.ones_like(grid[0])], -1).astype(dtype)
    turned = emit("Transpose", theta, dtype=dtype, perm=[0, 2, 1])
    flat = emit("MatMul", base[None], turned, dtype=dtype)
    return emit.reshape(flat, [-1, *spatial, len(spatial)], dtype=dtype), f"MatMul with the constant grid {spatial}"


def _coordinates(size: int, *, corners: bool) -> np.ndarray:
    if corners:
        # Of one pixel both corners are the place; ONNX Runtime takes the last, torch the middle.
        return np.linspace(-1, 1, size) if size > 1 else np.ones(1)
    return (np.arange(size) * 2 + 1) / size - 1


def _compress(emit: Emitter, node: gs.Node) -> tuple[gs.Tensor, str]:
    x, condition = node.inputs[:2]
    axis = node.attrs.get("axis")
    if axis is None:
        x = emit.reshape(x, [-1], dtype=x.dtype)
    values = constant(condition)
    if values is not None:
        places: gs.Tensor | np.ndarray = np.flatnonzero(values)
        what = f"Gather of the {len(places)} places where the condition is true"
    else:
        found = emit("NonZero", condition, dtype=np.int64)
        places = emit("Squeeze", found, np.array([0], np.int64), dtype=np.int64)
        what = "NonZero and Gather, which row 15 takes on"
    return emit("Gather", x, places, dtype=x.dtype, axis=int(axis or 0)), what


def _det(emit: Emitter, node: gs.Node) -> tuple[gs.Tensor, str]:
    x = node.inputs[0]
    size = x.shape[-1] if x.shape is not None else None
    if size not in (1, 2, 3):
        raise _LeftError(f"there is a formula for matrices up to 3 x 3, and this one is {size}")
    dtype = x.dtype

    def entry(row: int, column: int) -> gs.Variable:
        return emit.column(emit.column(x, row, -2, dtype=dtype), column, -1, dtype=dtype)

    def minor(columns: Sequence[int], rows: Sequence[int]) -> gs.Variable:
        first = emit("Mul", entry(rows[0], columns[0]), entry(rows[1], columns[1]), dtype=dtype)
        second = emit("Mul", entry(rows[0], columns[1]), entry(rows[1], columns[0]), dtype=dtype)
        return emit("Sub", first, second, dtype=dtype)

    if size == 1:
        made = entry(0, 0)
    elif size == 2:
        made = minor((0, 1), (0, 1))
    else:
        terms = [
            emit("Mul", entry(0, c), minor(rest, (1, 2)), dtype=dtype)
            for c, rest in enumerate([(1, 2), (0, 2), (0, 1)])
        ]
        made = emit("Add", emit("Sub", terms[0], terms[1], dtype=dtype), terms[2], dtype=dtype)
    return emit("Squeeze", made, np.array([-2, -1], np.int64), dtype=dtype), f"the formula for {size} x {size}"


def _has_element(emit: Emitter, node: gs.Node) -> tuple[gs.Tensor, str]:
    known = optional_input(node, 0)
    maker = known.inputs[0] if known is not None and known.inputs else None
    if known is None or (maker is not None and maker.op == "Optional" and not maker.inputs):
        return emit.constant(np.array(False)), "there is no element"
    if (maker is not None and maker.op == "Optional") or static_shape(known) is not None or known.shape is not None:
        return emit.constant(np.array(True)), "there is an element"
    raise _LeftError("whether there is an element is only known at run time")


def _get_element(emit: Emitter, node: gs.Node) -> tuple[gs.Tensor, str]:  # noqa: ARG001
    known = node.inputs[0]
    maker = known.inputs[0] if known.inputs else None
    if maker is not None and maker.op == "Optional" and maker.inputs:
        return maker.inputs[0], "the element itself"
    if known.shape is not None and "declared" not in vars(known):
        return known, "the element itself"
    raise _LeftError("whether there is an element is only known at run time")


_MAKERS: dict[str, Maker] = {
    "Col2Im": _col2im,
    "AffineGrid": _affine_grid,
    "Compress": _compress,
    "Det": _det,
    "OptionalHasElement": _has_element,
    "OptionalGetElement": _get_element,
}
_NAMED = ("Unique", "StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer")
_KNOWN = frozenset({*_MAKERS, *bitwise.OPERATORS, *_NAMED})

SURGERY = Surgery(
    row=38,
    name="rare operators",
    thread="onnx-tensorrt: No importer registered for op: Col2Im, AffineGrid, BitwiseAnd, Compress, Det, Unique ...",
    matches=matches,
    apply=apply,
)
