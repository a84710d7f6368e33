"""What NVIDIA documents that TensorRT does not take, looked for in a model: the judgement where TensorRT is not here.

It knows what `documented_operators.py` lists and the restrictions that the same page has on attributes and inputs. It
cannot know what only the builder finds out, so "nothing found" is not "builds".
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from components.surgery.diagnosis.documented_operators import (
    OPSETS,
    PLUGINS,
    SOURCE,
    SUPPORTED,
    TENSOR_TYPES,
    UNSUPPORTED,
    VERSION,
    words,
)
from components.surgery.diagnosis.nodes import attributes, bodies, constants, label, places, type_name, types
from components.surgery.diagnosis.search import Failure
from components.surgery.diagnosis.verdict import WHOLE_MODEL, Seen
from components.surgery.graphs import infer_shapes

_MAX_K = 3840
_SAME_TYPES = words("Add Sub Mul Div Pow Max Min MatMul Gemm Conv ConvTranspose Concat PRelu")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_RESIZE_FRAMES = words("half_pixel pytorch_half_pixel tf_half_pixel_for_nn asymmetric align_corners")
_REFUSED = f"not supported, says NVIDIA's list of operators (TensorRT {VERSION})"


class _Node(NamedTuple):
    """A node with what is known around it."""

    proto: onnx.NodeProto
    attributes: dict[str, object]
    constants: Mapping[str, onnx.TensorProto]
    types: Mapping[str, onnx.TypeProto]

    def given(self, index: int) -> bool:
        return len(self.proto.input) > index and bool(self.proto.input[index])

    def constant(self, index: int) -> np.ndarray | None:
        """The values of an input, where they are in the file."""
        tensor = self.constants.get(self.proto.input[index]) if self.given(index) else None
        return None if tensor is None or tensor.external_data else onnx.numpy_helper.to_array(tensor)

    def runs_late(self, index: int) -> bool:
        """Whether an input is there and its values are not in the file."""
        return self.given(index) and self.proto.input[index] not in self.constants

    def rank(self, index: int) -> int | None:
        kind = self.types.get(self.proto.input[index]) if self.given(index) else None
        shaped = kind is not None and kind.tensor_type.HasField("shape")
        return len(kind.tensor_type.shape.dim) if kind is not None and shaped else None

    def type_of(self, name: str) -> str:
        """Name of a tensor's type; empty where it is not known."""
        if name in self.constants:
            return type_name(self.constants[name].data_type)
        kind = self.types.get(name)
        if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.elem_type:
            return ""
        return type_name(kind.tensor_type.elem_type)


def examine(path: Path) -> dict[str, Any]:
    """Looks through the model; `parses` stays None, since nobody parsed it."""
    model = onnx.load(path, load_external_data=False)
    found = list(_failures(model))
    note = f"tensorrt is not installed here: judged by {SOURCE} of TensorRT {VERSION}; not parsed, not built"
    refused = any(failure["refused"] for failure in found)
    return {
        "tool": SOURCE,
        "version": VERSION,
        "parses": False if refused else None,
        "builds": None,
        "failures": found,
        "note": note,
    }


def _failures(model: onnx.ModelProto) -> Iterator[dict[str, Any]]:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset and opset not in OPSETS:
        said = f"opset {opset}; documented are {OPSETS.start} to {OPSETS.stop - 1}"
        yield _json(Failure(WHOLE_MODEL, "", said), rule=said, row=41, refused=False)
    values, known = constants(model), types(infer_shapes(model))
    functions = {(function.domain, function.name) for function in model.functions}
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        kind = type_name(value.type.tensor_type.elem_type) if value.type.HasField("tensor_type") else "no tensor"
        if value.name not in weights and kind not in TENSOR_TYPES:
            yield _json(Failure(f"input {value.name}", "input", f"its type is {kind}, which TensorRT does not have"))
    border = {value.name for value in (*model.graph.input, *model.graph.output)}
    for proto, _, _ in places(model):
        if (proto.domain, proto.op_type) in functions:
            continue
        node = _Node(proto, attributes(proto), values, known)
        for said, refused in _complaints(node, border):
            failure = Failure(label(proto), proto.op_type, said, attributes=node.attributes)
            yield _json(failure, refused=refused)


def _json(failure: Failure, **more: Any) -> dict[str, Any]:
    return {**failure.to_json(), "seen": Seen.DOCUMENTED, "source": SOURCE, "refused": True, **more}


def _complaints(node: _Node, border: set[str]) -> Iterator[tuple[str, bool]]:
    """Words, and whether the model is refused for them; doubtful ones are only worth knowing."""
    operator = node.proto.op_type
    if operator in UNSUPPORTED:
        yield f"{operator} is {_REFUSED}", True
        return
    if operator not in SUPPORTED:
        if operator not in PLUGINS:
            yield f"{operator} is in no list: TensorRT would look for a plugin of that name", True
        return
    for restriction in (*_RESTRICTIONS.get(operator, ()), _operand_types):
        if said := restriction(node):
            yield said, True
    yield from _tensor_types(node, border)


def _tensor_types(node: _Node, border: set[str]) -> Iterator[tuple[str, bool]]:
    operator = node.proto.op_type
    for name in node.proto.output:
        kind = node.type_of(name)
        if kind and kind not in TENSOR_TYPES:
            yield f"{name} has the data type {kind}, which TensorRT does not have", True
        elif kind == "UINT8" and name not in border and operator not in _QUANTIZERS:
            yield f"{name} is UINT8, which only inputs and outputs may be", True
    kind = node.type_of(node.proto.input[0]) if node.given(0) else ""
    accepted = SUPPORTED[operator] | {"DOUBLE"} | ({"BOOL", "INT32", "INT64"} if operator == "NonZero" else set())
    if kind in TENSOR_TYPES and kind not in accepted and operator not in (*_QUANTIZERS, "Cast", "CastLike"):
        yield (
            f"{operator} of {kind} is not among the documented types ({', '.join(sorted(SUPPORTED[operator]))})",
            False,
        )


def _operand_types(node: _Node) -> str:
    if node.proto.op_type not in _SAME_TYPES:
        return ""
    kinds = {kind for name in node.proto.input if (kind := node.type_of(name))}
    return f"operands must have the same types; they are {' and '.join(sorted(kinds))}" if len(kinds) > 1 else ""


def _pooling(node: _Node) -> str:
    kernel, dilations = _ints(node, "kernel_shape"), _ints(node, "dilations")
    if len(kernel) not in (0, 2, 3):
        return f"pooling in {len(kernel)} dimensions; documented: 2 and 3"
    if any(step != 1 for step in dilations):
        return f"dilations are {dilations}; they must be ones"
    if node.proto.op_type == "MaxPool" and len(node.proto.output) > 1 and node.proto.output[1]:
        return "the Indices output of MaxPool is not supported"
    return ""


def _zero_point(node: _Node) -> str:
    if node.proto.op_type == "DequantizeLinear" and node.type_of(node.proto.input[0]) == "INT32":
        return "input has type INT32 but must be INT8, FP8, FP4 or INT4"
    zero = node.constant(2)
    if zero is not None and np.any(zero.astype(np.float32)):
        return "the zero point must be zero"
    quantized = node.proto.output[0] if node.proto.op_type == "QuantizeLinear" else node.proto.input[0]
    return "a zero point of UINT8: must be INT8 with zero" if node.type_of(quantized) == "UINT8" else ""


def _resize(node: _Node) -> str:
    frame = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if node.attributes.get("antialias", 0):
        return "antialiasing is not supported"
    if frame not in _RESIZE_FRAMES:
        return f"the coordinate transformation mode {frame} is not supported"
    if node.attributes.get("mode", "nearest") == "cubic":
        return "the mode cubic is not documented"
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "the aspect ratio policy must be stretch"
    if node.runs_late(2):
        return "scales that come at run time are not supported"
    return ""


def _top_k(node: _Node) -> str:
    count = node.constant(1)
    if count is not None and count.size == 1 and int(count.reshape(())) > _MAX_K:
        return f"K is {int(count.reshape(()))}, which exceeds the maximum of {_MAX_K}"
    return "sorted must be 1" if node.attributes.get("sorted", 1) != 1 else ""


def _training(node: _Node) -> str:
    if node.proto.op_type == "BatchNormalization":
        return "training mode is not supported" if node.attributes.get("training_mode", 0) else ""
    mode = node.constant(2)
    if node.runs_late(2) or (mode is not None and mode.any()):
        return "training mode must be a constant false"
    return ""


def _reduction(node: _Node) -> str:
    kind = node.attributes.get("reduction", "none")
    return f"the reduction {kind} is not supported" if kind != "none" else ""


def _branches(node: _Node) -> str:
    ranks = []
    for body in bodies(node.proto):
        shaped = [value.type.tensor_type for value in body.output]
        named = [node.types.get(value.name) for value in body.output]
        kinds = [
            other.tensor_type if other is not None and not kind.HasField("shape") else kind
            for kind, other in zip(shaped, named, strict=True)
        ]
        ranks.append([len(kind.shape.dim) if kind.HasField("shape") else None for kind in kinds])
    for pair in zip(*ranks, strict=False):
        if None not in pair and len(set(pair)) > 1:
            return f"the branches must have outputs of the same rank; they have {' and '.join(map(str, pair))}"
    return ""


def _constant_input(index: int, name: str) -> Callable[[_Node], str]:
    def check(node: _Node) -> str:
        return f"{name} must be a constant" if node.runs_late(index) else ""

    return check


def _grid_sample(node: _Node) -> str:
    rank = node.rank(0)
    return f"the input must be 4D; its rank is {rank}" if rank not in (None, 4) else ""


def _lstm(node: _Node) -> str:
    wrong = [name for name in ("input_forget", "layout") if node.attributes.get(name, 0)]
    return f"{' and '.join(wrong)} must be 0" if wrong else ""


def _deform_conv(node: _Node) -> str:
    pads = _ints(node, "pads")
    half = len(pads) // 2
    return "pads must be the same at both ends of an axis" if pads[:half] != pads[half:] else ""


def _first_output_only(node: _Node) -> str:
    return "only the first output is supported" if any(node.proto.output[1:]) else ""


def _plain_constant(node: _Node) -> str:
    names = {attribute.name for attribute in node.proto.attribute}
    wrong = sorted(names & {"sparse_value", "value_string", "value_strings"})
    return f"a constant by {wrong[0]} is not supported" if wrong else ""


def _ints(node: _Node, name: str) -> list[int]:
    return next((list(one.ints) for one in node.proto.attribute if one.name == name), [])


_AXES = _constant_input(1, "axes")
_RESTRICTIONS: dict[str, tuple[Callable[[_Node], str], ...]] = {
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), (_pooling,)),
    **dict.fromkeys(_QUANTIZERS, (_zero_point,)),
    **{operator: (_AXES,) for operator in SUPPORTED if operator.startswith("Reduce")},
    **dict.fromkeys(("Squeeze", "Unsqueeze"), (_AXES,)),
    "CumSum": (_constant_input(1, "axis"),),
    "OneHot": (_constant_input(1, "depth"),),
    "STFT": (_constant_input(1, "frame_step"), _constant_input(2, "window")),
    "Resize": (_resize,),
    "TopK": (_top_k,),
    "Dropout": (_training,),
    "BatchNormalization": (_training,),
    "ScatterND": (_reduction,),
    "If": (_branches,),
    "GridSample": (_grid_sample,),
    "LSTM": (_lstm,),
    "DeformConv": (_deform_conv,),
    "LayerNormalization": (_first_output_only,),
    "Constant": (_plain_constant,),
}
