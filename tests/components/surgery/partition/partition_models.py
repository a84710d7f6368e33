"""Small models with nodes that no engine takes, and random graphs of nodes that it takes or not."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT, INT64, STRING, UINT8, DOUBLE = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.STRING,
    TensorProto.UINT8,
    TensorProto.DOUBLE,
)


def conv(source: str, made: str, name: str | None = None) -> onnx.NodeProto:
    """A 3x3 convolution of three channels with the weight `w`, same size out as in."""
    return helper.make_node("Conv", [source, "w"], [made], name=made if name is None else name, pads=[1, 1, 1, 1])


def weight(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, 3, 3, 3)).astype(np.float32)


def model_of(nodes, inputs, outputs, constants=None, opset=18) -> onnx.ModelProto:
    """A model; inputs by name as (type, shape), outputs by name as a type."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [
            onnx.numpy_helper.from_array(np.asarray(value), name)
            for name, value in ({"w": weight()} | (constants or {})).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


IMAGE = {"x": (FLOAT, [1, 3, 8, 8])}


def det_in_the_middle() -> onnx.ModelProto:
    """conv -> Det -> Reshape -> conv: two engines around what TensorRT does not have."""
    nodes = [
        conv("x", "c1"),
        helper.make_node("Det", ["c1"], ["d"], name="det"),
        helper.make_node("Reshape", ["d", "shape"], ["r"], name="reshape"),
        helper.make_node("Add", ["c1", "r"], ["a"], name="add"),
        conv("a", "y", "c2"),
    ]
    return model_of(nodes, IMAGE, {"y": FLOAT}, {"shape": np.array([1, 3, 1, 1])})


def two_branches() -> onnx.ModelProto:
    """One branch with a Det on it and one without, joined before a convolution."""
    nodes = [
        conv("x", "left"),
        helper.make_node("Det", ["left"], ["d"], name="det"),
        helper.make_node("Reshape", ["d", "shape"], ["r"], name="reshape"),
        conv("x", "right"),
        helper.make_node("Relu", ["right"], ["q"], name="relu"),
        conv("q", "deep"),
        helper.make_node("Mul", ["deep", "r"], ["m"], name="mul"),
        conv("m", "y"),
        helper.make_node("Sigmoid", ["q"], ["z"], name="sigmoid"),
    ]
    return model_of(nodes, IMAGE, {"y": FLOAT, "z": FLOAT}, {"shape": np.array([1, 3, 1, 1])})


def unique_at_the_end() -> onnx.ModelProto:
    nodes = [conv("x", "c1"), helper.make_node("Unique", ["c1"], ["y"], name="unique")]
    return model_of(nodes, IMAGE, {"y": FLOAT})


def non_zero_output() -> onnx.ModelProto:
    """A NonZero that feeds an output, and a head beside it."""
    nodes = [
        conv("x", "c1"),
        helper.make_node("Relu", ["c1"], ["p"], name="relu"),
        helper.make_node("NonZero", ["p"], ["where"], name="non_zero"),
        conv("p", "y"),
    ]
    return model_of(nodes, IMAGE, {"where": INT64, "y": FLOAT})


def strings_beside() -> onnx.ModelProto:
    nodes = [
        conv("x", "y"),
        helper.make_node("StringNormalizer", ["s"], ["t"], name="normalizer", case_change_action="UPPER", locale="C"),
    ]
    return model_of(nodes, IMAGE | {"s": (STRING, [3])}, {"y": FLOAT, "t": STRING})


def bytes_first() -> onnx.ModelProto:
    """A uint8 image, as cameras give it."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], name="cast", to=FLOAT),
        conv("f", "y"),
    ]
    return model_of(nodes, {"x": (UINT8, [1, 3, 8, 8])}, {"y": FLOAT})


def double_in_the_middle() -> onnx.ModelProto:
    nodes = [
        conv("x", "c1"),
        helper.make_node("Cast", ["c1"], ["long"], name="to_double", to=DOUBLE),
        helper.make_node("Exp", ["long"], ["e"], name="exp"),
        helper.make_node("Cast", ["e"], ["short"], name="to_float", to=FLOAT),
        conv("short", "y"),
    ]
    return model_of(nodes, IMAGE, {"y": FLOAT})


def sequences() -> onnx.ModelProto:
    nodes = [
        conv("x", "c1"),
        helper.make_node("SplitToSequence", ["c1"], ["s"], name="split", axis=1),
        helper.make_node("ConcatFromSequence", ["s"], ["j"], name="join", axis=1),
        conv("j", "y"),
    ]
    return model_of(nodes, IMAGE, {"y": FLOAT})


def all_supported() -> onnx.ModelProto:
    nodes = [conv("x", "c1"), helper.make_node("Relu", ["c1"], ["r"], name=""), conv("r", "y")]
    return model_of(nodes, IMAGE, {"y": FLOAT})


def nothing_supported() -> onnx.ModelProto:
    nodes = [helper.make_node("Det", ["x"], ["d"]), helper.make_node("Unique", ["d"], ["y"])]
    return model_of(nodes, IMAGE, {"y": FLOAT})


def nothing_to_do() -> onnx.ModelProto:
    """TensorRT takes it, and it is not worth an engine."""
    return model_of([helper.make_node("Relu", ["x"], ["y"], name="relu")], IMAGE, {"y": FLOAT})


def parses_and_does_not_build() -> onnx.ModelProto:
    """Boxes and scores of convolutions into a NonMaxSuppression, whose result picks rows for another product."""
    nodes = [
        conv("x", "c1"),
        helper.make_node("Reshape", ["c1", "as_boxes"], ["boxes"], name="boxes"),
        helper.make_node("Slice", ["boxes", "zero", "one", "last"], ["column"], name="column"),
        helper.make_node("Transpose", ["column"], ["scores"], name="scores", perm=[0, 2, 1]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"], name="nms"),
        helper.make_node("Cast", ["kept"], ["f"], name="cast", to=FLOAT),
        helper.make_node("MatMul", ["f", "three"], ["y"], name="matmul"),
    ]
    constants = {
        "as_boxes": np.array([1, 48, 4]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "last": np.array([2]),
        "most": np.array([5]),
        "three": np.eye(3, dtype=np.float32),
    }
    return model_of(nodes, IMAGE, {"y": FLOAT}, constants)


def captured_by_a_body() -> onnx.ModelProto:
    """An If whose branches read a tensor of the graph around them, one of them with a Det."""
    body = helper.make_graph(
        [helper.make_node("Det", ["c1"], ["d"]), helper.make_node("Reshape", ["d", "shape"], ["then"])],
        "then",
        [],
        [helper.make_tensor_value_info("then", FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("ReduceMax", ["c1", "sides"], ["else"])],
        "else",
        [],
        [helper.make_tensor_value_info("else", FLOAT, None)],
    )
    nodes = [
        conv("x", "c1"),
        helper.make_node("If", ["choice"], ["factor"], name="if", then_branch=body, else_branch=other),
        helper.make_node("Mul", ["c1", "factor"], ["m"], name="mul"),
        conv("m", "y"),
    ]
    inputs = IMAGE | {"choice": (TensorProto.BOOL, [])}
    constants = {"shape": np.array([1, 3, 1, 1]), "sides": np.array([2, 3])}
    return model_of(nodes, inputs, {"y": FLOAT}, constants)


def constants_and_inputs_leave() -> onnx.ModelProto:
    """Outputs that no node makes: the input itself, an initializer and what a Constant node holds."""
    value = helper.make_tensor("v", FLOAT, [2], [1.0, 2.0])
    nodes = [helper.make_node("Constant", [], ["held"], value=value), conv("x", "y")]
    return model_of(nodes, IMAGE, {"y": FLOAT, "x": FLOAT, "k": FLOAT, "held": FLOAT}, {"k": np.ones(2, np.float32)})
