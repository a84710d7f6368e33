"""Small, sound ONNX files that the fuzzer damages: a byte in them is seldom a weight and mostly structure."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.INT32


def _model(nodes, inputs, outputs, constants=None, opset=17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def branches() -> onnx.ModelProto:
    """An If with a constant condition, whose branches capture a tensor."""
    bodies = {
        name: helper.make_graph(
            [helper.make_node(operator, ["a"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, None)],
        )
        for name, operator in (("then", "Squeeze"), ("else", "Identity"))
    }
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("Gather", ["s", "i"], ["d"]),
        helper.make_node("Equal", ["d", "one"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=bodies["then"], else_branch=bodies["else"]),
    ]
    return _model(nodes, {"x": (FLOAT, [1, 3])}, {"y": FLOAT}, {"i": np.int64(0), "one": np.int64(1)})


def loop() -> onnx.ModelProto:
    """A Loop with a constant trip count and a growing state."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["before", "x"], ["after"]),
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Identity", ["after"], ["row"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", INT64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("before", FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("again", BOOL, []),
            helper.make_tensor_value_info("after", FLOAT, [2]),
            helper.make_tensor_value_info("row", FLOAT, [2]),
        ],
    )
    nodes = [helper.make_node("Loop", ["trips", "yes", "x"], ["y", "rows"], body=body)]
    constants = {"trips": np.int64(3), "yes": np.bool_(True)}
    return _model(nodes, {"x": (FLOAT, [2])}, {"y": FLOAT, "rows": FLOAT}, constants)


def quantized() -> onnx.ModelProto:
    """A convolution between QuantizeLinear and DequantizeLinear, with a bias in INT32 and zero points."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["dw"]),
        helper.make_node("DequantizeLinear", ["b", "s"], ["db"]),
        helper.make_node("Conv", ["d", "dw", "db"], ["y"], kernel_shape=[1, 1]),
    ]
    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(128),
        "zw": np.int8(0),
        "w": np.ones((2, 2, 1, 1), np.int8),
        "b": np.ones(2, np.int32),
    }
    return _model(nodes, {"x": (FLOAT, [1, 2, 2, 2])}, {"y": FLOAT}, constants)


def resized() -> onnx.ModelProto:
    """A Resize whose scales are computed, and a Slice with sentinels."""
    nodes = [
        helper.make_node("Concat", ["ones", "twos"], ["s"], axis=0),
        helper.make_node("Resize", ["x", "", "s"], ["r"], mode="nearest", nearest_mode="floor"),
        helper.make_node("Slice", ["r", "a", "b"], ["y"]),
    ]
    constants = {
        "ones": np.ones(2, np.float32),
        "twos": np.full(2, 2, np.float32),
        "a": np.array([0]),
        "b": np.array([2**63 - 1]),
    }
    return _model(nodes, {"x": (FLOAT, [1, 1, 2, 2])}, {"y": FLOAT}, constants)


def suppressed() -> onnx.ModelProto:
    """NonMaxSuppression, NonZero and TopK on six boxes."""
    nodes = [
        helper.make_node("NonMaxSuppression", ["b", "s", "k", "t"], ["kept"]),
        helper.make_node("Greater", ["s", "t"], ["m"]),
        helper.make_node("NonZero", ["m"], ["where"]),
        helper.make_node("TopK", ["s", "k"], ["top", "at"]),
    ]
    constants = {"k": np.array([3]), "t": np.array([0.5], np.float32)}
    inputs = {"b": (FLOAT, [1, 6, 4]), "s": (FLOAT, [1, 1, 6])}
    return _model(nodes, inputs, {"kept": INT64, "where": INT64, "top": FLOAT}, constants)


def scattered() -> onnx.ModelProto:
    """Einsum, ScatterND, Cast and a sequence, with an open dimension."""
    nodes = [
        helper.make_node("Einsum", ["x", "x"], ["e"], equation="ij,kj->ik"),
        helper.make_node("ReduceSum", ["e"], ["r"], keepdims=0),
        helper.make_node("Cast", ["r"], ["c"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["c"], ["f"], to=FLOAT),
        helper.make_node("ScatterND", ["x", "i", "u"], ["n"]),
        helper.make_node("SplitToSequence", ["n"], ["seq"], axis=1),
        helper.make_node("ConcatFromSequence", ["seq"], ["j"], axis=0),
        helper.make_node("Mul", ["j", "f"], ["y"]),
    ]
    constants = {"i": np.array([[0, 0]]), "u": np.array([5.0], np.float32)}
    return _model(nodes, {"x": (FLOAT, ["n", 3])}, {"y": FLOAT}, constants)


def external() -> onnx.ModelProto:
    """A product whose weight `save` puts into a file beside the model."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    constants = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32)}
    return _model(nodes, {"x": (FLOAT, [2, 4])}, {"y": FLOAT}, constants)


SEEDS = (branches, loop, quantized, resized, suppressed, scattered, external)


def content(name: str) -> tuple[bytes, bytes]:
    """The bytes of a seed's file, and of the file with its external data, if it has one."""
    model = next(make for make in SEEDS if make.__name__ == name)()
    data = b""
    if name == "external":
        tensor = model.graph.initializer[0]
        data = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "model.data"), ("offset", 0), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
    return model.SerializeToString(deterministic=True), data
