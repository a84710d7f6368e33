"""The smallest graphs that TensorRT-RTX refuses, by row of the table; the node to blame is called `it`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, DOUBLE, STRING = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.STRING
INT64, INT32, INT16, INT8 = TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8
UINT32, UINT8, BOOL = TensorProto.UINT32, TensorProto.UINT8, TensorProto.BOOL
Tensors = Mapping[str, tuple[int, Sequence[Any] | None]]
node = helper.make_node
IMAGE = (FLOAT, [1, 3, 16, 16])


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Tensors,
    outputs: Tensors,
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of nodes; inputs and outputs by name as (type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if opset < 19 else 10)


def one(
    op: str,
    inputs: Tensors,
    outputs: Mapping[str, int],
    constants: Mapping[str, Any] | None = None,
    order: Sequence[str] | None = None,
    opset: int = 17,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node."""
    names = list(order or [*inputs, *(constants or {})])
    made = {name: (kind, None) for name, kind in outputs.items()}
    return model_of([node(op, names, list(outputs), name="it", **attributes)], inputs, made, constants, opset)


def resize(constants: Mapping[str, Any], order: Sequence[str], opset: int = 18, **attributes: Any) -> onnx.ModelProto:
    return one("Resize", {"x": IMAGE}, {"y": FLOAT}, constants, order, opset, **attributes)


def cast_there_and_back(kind: int, middle: onnx.NodeProto | None = None) -> onnx.ModelProto:
    nodes = [node("Cast", ["x"], ["m"], name="it", to=kind), *([middle] if middle else [])]
    last = middle.output[0] if middle else "m"
    nodes.append(node("Cast", [last], ["y"], name="back", to=FLOAT))
    return model_of(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])})


def quantize(zero: Any) -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="it"),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return model_of(nodes, {"x": (FLOAT, [4])}, {"y": (FLOAT, [4])}, {"s": np.float32(0.1), "z": zero})


def integer_bias() -> onnx.ModelProto:
    nodes = [node("DequantizeLinear", ["b", "s"], ["real"], name="it"), node("Add", ["x", "real"], ["y"])]
    constants = {"b": np.arange(4, dtype=np.int32), "s": np.float32(0.1)}
    return model_of(nodes, {"x": (FLOAT, [4])}, {"y": (FLOAT, [4])}, constants)


def quantized(op: str, data: Sequence[int], weight: Sequence[int]) -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node(op, ["q", "s", "z", "w", "s", "z", "s", "z"], ["c"], name="it"),
        node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w": np.ones(weight, np.int8)}
    return model_of(nodes, {"x": (FLOAT, data)}, {"y": (FLOAT, None)}, constants)


def mixed(op: str, data: Sequence[int], weight: Sequence[int]) -> onnx.ModelProto:
    nodes = [node("Cast", ["x"], ["half"], to=HALF), node(op, ["half", "w"], ["y"], name="it")]
    return model_of(nodes, {"x": (FLOAT, data)}, {"y": (FLOAT, None)}, {"w": np.ones(weight, np.float32)})


def nms(boxes: int = 50) -> onnx.ModelProto:
    inputs = {"b": (FLOAT, [1, boxes, 4]), "s": (FLOAT, [1, 1, boxes])}
    return one("NonMaxSuppression", inputs, {"y": INT64}, {"m": np.array([10]), "t": floats(0.5)})


def nms_plugin(domain: str = "") -> onnx.ModelProto:
    it = node("EfficientNMS_TRT", ["b", "s"], ["n", "bb", "ss", "c"], name="it", domain=domain, plugin_version="1")
    outputs = {"n": (INT32, [1, 1]), "bb": (FLOAT, [1, 9, 4]), "ss": (FLOAT, [1, 9]), "c": (INT32, [1, 9])}
    inputs = {"b": (FLOAT, [1, 50, 4]), "s": (FLOAT, [1, 50, 3])}
    return model_of([it], inputs, outputs, domains=[domain] if domain else [])


def branch(op: str, made: str, *inputs: str, name: str = "inner") -> onnx.GraphProto:
    value = helper.make_tensor_value_info(made, FLOAT, None)
    return helper.make_graph([node(op, inputs, [made], name=name)], name, [], [value])


def squeezed() -> onnx.ModelProto:
    branches = {"then_branch": branch("Squeeze", "t", "x", "a"), "else_branch": branch("Identity", "e", "x")}
    it = node("If", ["c"], ["y"], name="it", **branches)
    return model_of([it], {"x": (FLOAT, [1, 3]), "c": (BOOL, [])}, {"y": (FLOAT, None)}, {"a": np.array([0])})


def growing() -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Concat", ["s", "x"], ["grown"], name="grow", axis=0), node("Identity", ["c"], ["go"])],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("s", FLOAT, ["n", 3]),
        ],
        [helper.make_tensor_value_info("go", BOOL, []), helper.make_tensor_value_info("grown", FLOAT, ["m", 3])],
    )
    constants = {"k": np.array(3), "t": np.array(True)}
    it = node("Loop", ["k", "t", "x"], ["y"], name="it", body=body)
    return model_of([it], {"x": (FLOAT, [1, 3])}, {"y": (FLOAT, None)}, constants)


def sequence(op: str) -> onnx.ModelProto:
    if op == "SplitToSequence":
        nodes = [node(op, ["x", "k"], ["q"], name="it", axis=0), node("SequenceAt", ["q", "i"], ["y"], name="at")]
        constants = {"k": np.array(2), "i": np.array(0)}
        return model_of(nodes, {"x": (FLOAT, [4, 3])}, {"y": (FLOAT, None)}, constants)
    nodes = [node("SequenceConstruct", ["x", "x"], ["q"], name="it"), node(op, ["q"], ["y"], name="cat", axis=0)]
    return model_of(nodes, {"x": (FLOAT, [4, 3])}, {"y": (FLOAT, None)})


def scatter(op: str, reduction: str) -> onnx.ModelProto:
    indices = np.array([[0], [1]]) if op == "ScatterND" else np.zeros((2, 3), np.int64)
    inputs = {"x": (FLOAT, [4, 3]), "u": (FLOAT, [2, 3])}
    return one(op, inputs, {"y": FLOAT}, {"i": indices}, ["x", "i", "u"], 18, reduction=reduction)


def trained(op: str) -> onnx.ModelProto:
    if op == "Dropout":
        it = node(op, ["x", "r", "t"], ["y"], name="it")
        return model_of([it], {"x": IMAGE}, {"y": IMAGE}, {"r": np.float32(0.5), "t": np.array(True)})
    it = node(op, ["x", *"sbmv"], ["y", "mean", "var"], name="it", training_mode=1)
    return model_of([it], {"x": IMAGE}, {"y": (FLOAT, None)}, {name: np.ones(3, np.float32) for name in "sbmv"})


def foreign(op: str, domain: str) -> onnx.ModelProto:
    it = node(op, ["x"], ["y"], name="it", domain=domain)
    return model_of([it], {"x": IMAGE}, {"y": (FLOAT, None)}, domains=[domain])


def optional() -> onnx.ModelProto:
    nodes = [node("Optional", ["x"], ["o"], name="it"), node("OptionalGetElement", ["o"], ["y"], name="get")]
    return model_of(nodes, {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}, opset=18)


def bits(op: str, kind: int = INT32, **attributes: Any) -> onnx.ModelProto:
    inputs = {"x": (kind, [3]), **({} if op == "BitwiseNot" else {"z": (kind, [3])})}
    return one(op, inputs, {"y": kind}, opset=18, **attributes)


_SIZES = np.array([1, 3, 8, 8])
_ROIS = {"x": IMAGE, "r": (FLOAT, [4, 4]), "b": (INT64, [4])}

REFUSED: list[tuple[int, str, onnx.ModelProto]] = [
    (2, "run-time scales", one("Resize", {"x": IMAGE, "s": (FLOAT, [4])}, {"y": FLOAT}, None, ["x", "", "s"])),
    (3, "antialias", resize({"s": _SIZES}, ["x", "", "", "s"], mode="linear", antialias=1)),
    (
        5,
        "tf_crop_and_resize",
        resize(
            {"roi": floats(0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9), "s": _SIZES},
            ["x", "roi", "", "s"],
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
    ),
    (
        6,
        "keep_aspect_ratio_policy",
        resize(
            {"s": np.array([8, 8])},
            ["x", "", "", "s"],
            mode="linear",
            keep_aspect_ratio_policy="not_larger",
            axes=[2, 3],
        ),
    ),
    (9, "UINT8 mask", cast_there_and_back(UINT8, node("Add", ["m", "m"], ["n"], name="sum"))),
    (10, "Cast to INT16", cast_there_and_back(INT16)),
    (10, "Cast to UINT32", cast_there_and_back(UINT32)),
    (12, "NonMaxSuppression", nms()),
    (13, "EfficientNMS_TRT", nms_plugin()),
    (13, "EfficientNMS_TRT of the domain TRT", nms_plugin("TRT")),
    (14, "RoiAlign", one("RoiAlign", _ROIS, {"y": FLOAT}, output_height=2, output_width=2, sampling_ratio=2)),
    (15, "NonZero", one("NonZero", {"x": (BOOL, [3, 4])}, {"y": INT64})),
    (16, "TopK", one("TopK", {"x": (FLOAT, [1, 5000])}, {"v": FLOAT, "i": INT64}, {"k": np.array([4000])})),
    (18, "If", squeezed()),
    (19, "SplitToSequence", sequence("SplitToSequence")),
    (19, "ConcatFromSequence", sequence("ConcatFromSequence")),
    (20, "ScatterND add", scatter("ScatterND", "add")),
    (20, "ScatterElements add", scatter("ScatterElements", "add")),
    (25, "zero point 3", quantize(np.int8(3))),
    (25, "uint8", quantize(np.uint8(128))),
    (26, "INT32 bias", integer_bias()),
    (27, "QLinearConv", quantized("QLinearConv", [1, 3, 8, 8], [2, 3, 3, 3])),
    (27, "QLinearMatMul", quantized("QLinearMatMul", [2, 3], [3, 4])),
    (27, "MatMulInteger", one("MatMulInteger", {"a": (INT8, [2, 3])}, {"y": INT32}, {"b": np.ones((3, 4), np.int8)})),
    (
        27,
        "ConvInteger",
        one("ConvInteger", {"a": (INT8, [1, 3, 8, 8])}, {"y": INT32}, {"b": np.ones((2, 3, 3, 3), np.int8)}),
    ),
    (
        27,
        "DynamicQuantizeLinear",
        one("DynamicQuantizeLinear", {"a": (FLOAT, [2, 3])}, {"q": UINT8, "s": FLOAT, "z": UINT8}),
    ),
    (32, "dilated MaxPool", one("MaxPool", {"x": IMAGE}, {"y": FLOAT}, kernel_shape=[3, 3], dilations=[2, 2])),
    (
        33,
        "MaxPool indices",
        one("MaxPool", {"x": IMAGE}, {"y": FLOAT, "i": INT64}, kernel_shape=[2, 2], strides=[2, 2]),
    ),
    (
        33,
        "MaxUnpool",
        one("MaxUnpool", {"x": (FLOAT, [1, 3, 4, 4]), "i": (INT64, [1, 3, 4, 4])}, {"y": FLOAT}, kernel_shape=[2, 2]),
    ),
    (34, "Loop", growing()),
    (35, "DFT", one("DFT", {"x": (FLOAT, [1, 16, 1])}, {"y": FLOAT}, axis=1)),
    (36, "mixed MatMul", mixed("MatMul", [2, 3], [3, 4])),
    (36, "mixed Conv", mixed("Conv", [1, 3, 8, 8], [3, 3, 3, 3])),
    (36, "mixed Add", mixed("Add", [2, 3], [2, 3])),
    (37, "Dropout", trained("Dropout")),
    (37, "BatchNormalization", trained("BatchNormalization")),
    (38, "Unique", one("Unique", {"x": (FLOAT, [5])}, {"y": FLOAT})),
    (38, "Compress", one("Compress", {"x": (FLOAT, [5]), "c": (BOOL, [5])}, {"y": FLOAT}, axis=0)),
    (38, "Det", one("Det", {"x": (FLOAT, [3, 3])}, {"y": FLOAT})),
    *((38, op, bits(op)) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")),
    (38, "BitShift", bits("BitShift", UINT8, direction="LEFT")),
    (
        38,
        "Col2Im",
        one(
            "Col2Im",
            {"x": (FLOAT, [1, 12, 16])},
            {"y": FLOAT},
            {"s": np.array([5, 5]), "b": np.array([2, 2])},
            opset=18,
        ),
    ),
    (
        38,
        "AffineGrid",
        one("AffineGrid", {"t": (FLOAT, [1, 2, 3])}, {"y": FLOAT}, {"s": np.array([1, 3, 4, 4])}, opset=20),
    ),
    (38, "Optional", optional()),
    (38, "StringNormalizer", one("StringNormalizer", {"x": (STRING, [3])}, {"y": STRING})),
    (38, "Cast to STRING", cast_there_and_back(STRING)),
    (
        39,
        "DeformConv",
        one(
            "DeformConv",
            {"x": (FLOAT, [1, 3, 8, 8]), "w": (FLOAT, [4, 3, 3, 3]), "o": (FLOAT, [1, 18, 6, 6])},
            {"y": FLOAT},
            opset=19,
        ),
    ),
    *((44, f"{op} {how}", scatter(op, how)) for op in ("ScatterND", "ScatterElements") for how in ("max", "min")),
    (45, "MaxRoiPool", one("MaxRoiPool", {"x": IMAGE, "r": (FLOAT, [4, 5])}, {"y": FLOAT}, pooled_shape=[2, 2])),
]
"""Row, name, model: everything that the parser or the builder of TensorRT-RTX 1.7.1 refuses."""

WITHOUT_ROW: list[tuple[str, onnx.ModelProto]] = [
    ("ATen", foreign("ATen", "org.pytorch.aten")),
    ("FusedConv", foreign("FusedConv", "com.microsoft")),
    ("Bernoulli", one("Bernoulli", {"x": (FLOAT, [3])}, {"y": FLOAT})),
    ("CenterCropPad", one("CenterCropPad", {"x": (FLOAT, [3, 4]), "s": (INT64, [2])}, {"y": FLOAT}, opset=18)),
    ("Mystery", one("Mystery", {"x": (FLOAT, [3])}, {"y": FLOAT})),
]
"""Refused, and no row is about it."""
