"""Graphs of any size, mixed as exporters mix them: layers, constants, shape arithmetic, rows of the table."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, make_model

CHANNELS, SIDE = 8, 8
SHAPE = (1, CHANNELS, SIDE, SIDE)


class Writer:
    """Appends nodes to one chain of feature maps [1, 8, 8, 8]."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def __call__(self, op: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        """Adds a node; arrays become initializers."""
        name = f"{op}_{len(self.nodes)}"
        names = [value if isinstance(value, str) else self.initializer(value) for value in inputs]
        self.nodes.append(helper.make_node(op, names, [f"{name}:0"], name=name, **attributes))
        return f"{name}:0"

    def constant(self, value: np.ndarray) -> str:
        """A Constant node."""
        return self("Constant", value=onnx.numpy_helper.from_array(value))

    def initializer(self, value: np.ndarray) -> str:
        """An initializer."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name


def layers(write: Writer, x: str) -> str:
    """A residual block with its constants as nodes."""
    weight = (write.rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 9).astype(np.float32)
    y = write("Conv", x, weight, np.zeros(CHANNELS, np.float32), pads=[1, 1, 1, 1])
    y = write("Relu", y)
    y = write("Mul", y, write.constant(np.array(0.5, np.float32)))
    return write("Tanh", write("Add", x, y))


def viewed(write: Writer, x: str) -> str:
    """``x.view(x.shape[0], -1).view(x.shape)`` as TorchScript writes it."""
    shape = write("Shape", x)
    batch = write("Unsqueeze", write("Gather", shape, write.constant(np.array(0)), axis=0), np.array([0]))
    flat = write("Reshape", x, write("Concat", batch, write.constant(np.array([-1])), axis=0))
    return write("Reshape", write("Identity", flat), write("Shape", x))


def resized(write: Writer, x: str) -> str:
    """Row 1: scales behind Identity and Constant."""
    scales = write("Identity", write.constant(np.array([1, 1, 2, 2], np.float32)))
    y = write(
        "Resize", x, "", scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
    )
    return write("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])


def branched(write: Writer, x: str) -> str:
    """Row 18: an If whose condition is known by the shapes."""
    rank = write("Gather", write("Shape", x), np.array(0), axis=0)
    condition = write("Equal", rank, np.array(1))
    branches = {}
    for branch, op in (("then_branch", "Neg"), ("else_branch", "Abs")):
        output = helper.make_tensor_value_info(f"{condition}/{op}", FLOAT, None)
        inner = [
            helper.make_node("Constant", [], [f"{condition}/{op}/half"], value_float=0.5),
            helper.make_node(op, [x], [f"{condition}/{op}/made"], name=op),
            helper.make_node("Mul", [f"{condition}/{op}/made", f"{condition}/{op}/half"], [output.name]),
        ]
        branches[branch] = helper.make_graph(inner, branch, [], [output])
    return write("If", condition, **branches)


def sliced(write: Writer, x: str) -> str:
    """Row 11: a slice to the end, which is INT64_MAX."""
    bounds = (np.array([0]), np.array([np.iinfo(np.int64).max]), np.array([2]))
    return write("Slice", x, *bounds)


def summed(write: Writer, x: str) -> str:
    """Row 24: an Einsum of three operands."""
    ones = np.full(CHANNELS, 0.9, np.float32)
    return write("Einsum", x, ones, ones, equation="nchw,c,c->nchw")


def doubled(write: Writer, x: str) -> str:
    """Row 7: a detour through FLOAT64."""
    y = write("Cast", x, to=TensorProto.DOUBLE)
    y = write("Mul", y, write.constant(np.array(0.5, np.float64)))
    return write("Cast", y, to=FLOAT)


def normalized(write: Writer, x: str) -> str:
    """Row 29: a LayerNorm taken apart."""
    centered = write("Sub", x, write("ReduceMean", x, axes=[-1]))
    power = write("Pow", centered, write.constant(np.array(2, np.float32)))
    variance = write("Add", write("ReduceMean", power, axes=[-1]), write.constant(np.array(1e-5, np.float32)))
    return write("Tanh", write("Div", centered, write("Sqrt", variance)))


PATTERNS: tuple[Callable[[Writer, str], str], ...] = (resized, branched, sliced, summed, doubled, normalized)


def large_graph(nodes: int) -> onnx.ModelProto:
    """A graph of about so many nodes: mostly layers, every fifth block shape arithmetic, every seventh a pattern."""
    write, x, block = Writer(), "x", 0
    while len(write.nodes) < nodes:
        x = layers(write, x)
        if block % 5 == 0:
            x = viewed(write, x)
        if block % 7 == 0:
            x = PATTERNS[block // 7 % len(PATTERNS)](write, x)
        block += 1
    write("Identity", x)
    write.nodes[-1].output[0] = "y"
    return make_model(write.nodes, {"x": (FLOAT, SHAPE)}, {"y": (FLOAT, SHAPE)}, write.constants)
