"""Random small graphs of the table's operators: after surgery ONNX Runtime gives the same, and twice is once."""

from typing import NamedTuple

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from surgery_graphs import RTX

from components.core.contracts.job import Runtime
from components.surgery.evaluate import EvaluationError, Model
from components.surgery.operate import operate
from components.surgery.proof import difference
from components.surgery.surgery import Outcome

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Value(NamedTuple):
    """A float tensor that a graph has so far."""

    name: str
    shape: tuple[int, ...]


class Sketch:
    """A graph that is being drawn: nodes, constants and the float tensors that more nodes can read."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.values = [Value("x", (1, 2, 4, 6)), Value("v", (5,)), Value("m", (3, 4))]
        self.outputs: dict[str, int] = {}

    def fresh(self) -> str:
        return f"t{len(self.nodes)}_{len(self.constants)}"

    def constant(self, value: object, dtype: object, *, node: bool) -> str:
        """An initializer, or a Constant node."""
        name, array = self.fresh(), np.array(value, dtype)
        if node:
            tensor = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.constants[name] = array
        return name

    def add(self, op: str, inputs: list[str], count: int = 1, **attributes: object) -> list[str]:
        names = [f"{self.fresh()}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names

    def keep(self, name: str, shape: tuple[int, ...]) -> None:
        self.values.append(Value(name, shape))

    def leave(self, name: str, kind: int) -> None:
        """An output of the model."""
        self.outputs[name] = kind


def elementwise(draw, sketch: Sketch, value: Value) -> None:
    op = draw(st.sampled_from(["Relu", "Sigmoid", "Abs", "Neg", "Identity", "Tanh"]))
    sketch.keep(sketch.add(op, [value.name])[0], value.shape)


def resize(draw, sketch: Sketch, value: Value) -> None:
    assume(len(value.shape) == 4)
    height, width = (draw(st.sampled_from([0.5, 1.0, 1.5, 2.0])) for _ in range(2))
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    where = draw(st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]))
    node = draw(st.booleans())
    made = (*value.shape[:2], int(value.shape[2] * height), int(value.shape[3] * width))
    assume(min(made) > 0)
    options = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        options["nearest_mode"] = draw(st.sampled_from(["floor", "round_prefer_floor", "ceil"]))
    if draw(st.booleans()):
        ones = sketch.constant([1, 1], np.float32, node=node)
        scales = sketch.constant([height, width], np.float32, node=node)
        (together,) = sketch.add("Concat", [ones, scales], axis=0)
        inputs = [value.name, "", together]
    else:
        inputs = [value.name, "", "", sketch.constant(made, np.int64, node=node)]
    sketch.keep(sketch.add("Resize", inputs, **options)[0], made)


def cut(draw, sketch: Sketch, value: Value) -> None:
    axis = draw(st.integers(0, len(value.shape) - 1))
    start = draw(st.integers(0, value.shape[axis] - 1))
    end = draw(st.sampled_from([value.shape[axis], 2**63 - 1, 2**31 - 1]))
    node = draw(st.booleans())
    inputs = [sketch.constant([one], np.int64, node=node) for one in (start, end, axis - len(value.shape))]
    shape = tuple(size - start if one == axis else size for one, size in enumerate(value.shape))
    sketch.keep(sketch.add("Slice", [value.name, *inputs])[0], shape)


def gather(draw, sketch: Sketch, value: Value) -> None:
    axis = draw(st.integers(0, len(value.shape) - 1))
    size = value.shape[axis]
    indices = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=3))
    name = sketch.constant(indices, np.int64, node=draw(st.booleans()))
    shape = (*value.shape[:axis], len(indices), *value.shape[axis + 1 :])
    sketch.keep(sketch.add("Gather", [value.name, name], axis=axis)[0], shape)


def concat(draw, sketch: Sketch, value: Value) -> None:
    axis = draw(st.integers(0, len(value.shape) - 1))
    shape = tuple(2 * size if one == axis else size for one, size in enumerate(value.shape))
    assume(np.prod(shape) < 500)
    sketch.keep(sketch.add("Concat", [value.name, value.name], axis=axis)[0], shape)


def reshape(draw, sketch: Sketch, value: Value) -> None:
    """To a matrix, with the shape as a constant, with -1, or computed from the tensor's own."""
    rows, total = value.shape[0], int(np.prod(value.shape))
    way = draw(st.sampled_from(["constant", "minus one", "computed"]))
    if way == "computed":
        (shape,) = sketch.add("Shape", [value.name])
        first = sketch.constant([0], np.int64, node=draw(st.booleans()))
        (head,) = sketch.add("Gather", [shape, first], axis=0)
        target = sketch.add("Concat", [head, sketch.constant([-1], np.int64, node=False)], axis=0)[0]
    else:
        target = sketch.constant(
            [rows, -1 if way == "minus one" else total // rows], np.int64, node=draw(st.booleans())
        )
    sketch.keep(sketch.add("Reshape", [value.name, target])[0], (rows, total // rows))


def top_k(draw, sketch: Sketch, value: Value) -> None:
    count = sketch.constant([draw(st.integers(1, value.shape[-1]))], np.int64, node=draw(st.booleans()))
    values, indices = sketch.add("TopK", [value.name, count], 2, largest=draw(st.integers(0, 1)))
    sketch.leave(values, FLOAT)
    if draw(st.booleans()):
        sketch.leave(indices, INT64)


def non_zero(draw, sketch: Sketch, value: Value) -> None:
    """Whose rows leave the graph, or are summed over."""
    (mask,) = sketch.add("Relu", [value.name])
    (where,) = sketch.add("NonZero", [mask])
    if draw(st.booleans()):
        sketch.leave(where, INT64)
        return
    (columns,) = sketch.add("Transpose", [where], perm=[1, 0])
    (picked,) = sketch.add("GatherND", [value.name, columns])
    sketch.keep(sketch.add("ReduceSum", [picked], keepdims=1)[0], (1,))


def suppress(draw, sketch: Sketch, value: Value) -> None:
    """NonMaxSuppression of boxes that are made of the tensor."""
    total = int(np.prod(value.shape))
    assume(total >= 8)
    count = total // 4
    (flat,) = sketch.add("Reshape", [value.name, sketch.constant([-1], np.int64, node=False)])
    bounds = [sketch.constant([one], np.int64, node=False) for one in (0, 4 * count)]
    (even,) = sketch.add("Slice", [flat, *bounds])
    (boxes,) = sketch.add("Reshape", [even, sketch.constant([1, count, 4], np.int64, node=False)])
    (score,) = sketch.add("ReduceSum", [boxes, sketch.constant([2], np.int64, node=False)], keepdims=0)
    (scores,) = sketch.add("Reshape", [score, sketch.constant([1, 1, count], np.int64, node=False)])
    most = sketch.constant([draw(st.integers(1, 5))], np.int64, node=draw(st.booleans()))
    limits = [sketch.constant([draw(st.sampled_from([0.0, 0.3, 0.6]))], np.float32, node=False) for _ in range(2)]
    sketch.leave(sketch.add("NonMaxSuppression", [boxes, scores, most, *limits])[0], INT64)


def scatter(draw, sketch: Sketch, value: Value) -> None:
    indices = draw(st.lists(st.integers(0, value.shape[0] - 1), min_size=1, max_size=3, unique=True))
    updates = np.arange(len(indices) * np.prod(value.shape[1:]), dtype=np.float32)
    where = sketch.constant([[one] for one in indices], np.int64, node=draw(st.booleans()))
    what = sketch.constant(updates.reshape(len(indices), *value.shape[1:]), np.float32, node=False)
    options = {"reduction": "add"} if draw(st.booleans()) else {}
    sketch.keep(sketch.add("ScatterND", [value.name, where, what], **options)[0], value.shape)


def einsum(draw, sketch: Sketch, value: Value) -> None:
    assume(len(value.shape) == 2)
    equation, shape = draw(
        st.sampled_from(
            [
                ("ij,kj->ik", (value.shape[0], value.shape[0])),
                ("...j,...j->...", (value.shape[0],)),
                ("ij,ij,ij->j", (value.shape[1],)),
                ("ij,ik->jk", (value.shape[1], value.shape[1])),
            ]
        )
    )
    sources = [value.name] * (equation.count(",") + 1)
    sketch.keep(sketch.add("Einsum", sources, equation=equation)[0], shape)


def cast(draw, sketch: Sketch, value: Value) -> None:
    """There and back, by way of a type that TensorRT may not have; the values are exact in all of them."""
    kind = draw(st.sampled_from(["DOUBLE", "INT32", "INT64", "INT16", "UINT8", "BOOL", "FLOAT16"]))
    (small,) = sketch.add("Sign", [value.name])
    (positive,) = sketch.add("Abs", [small])
    (away,) = sketch.add("Cast", [positive], to=getattr(TensorProto, kind))
    sketch.keep(sketch.add("Cast", [away], to=FLOAT)[0], value.shape)


def choose(draw, sketch: Sketch, value: Value) -> None:
    """An If on a constant, on the tensor's own shape, or on its values; the branches read the graph around them."""
    bodies = []
    for op in draw(st.permutations(["Relu", "Neg"])):
        made = f"{sketch.fresh()}_{op}"
        bodies.append(
            helper.make_graph(
                [helper.make_node(op, [value.name], [made])],
                op,
                [],
                [helper.make_tensor_value_info(made, FLOAT, None)],
            )
        )
    way = draw(st.sampled_from(["constant", "shape", "values"]))
    if way == "constant":
        condition = sketch.constant(draw(st.booleans()), np.bool_, node=draw(st.booleans()))
    elif way == "shape":
        (size,) = sketch.add("Size", [value.name])
        condition = sketch.add("Greater", [size, sketch.constant(4, np.int64, node=False)])[0]
    else:
        (total,) = sketch.add("ReduceSum", [value.name], keepdims=0)
        condition = sketch.add("Greater", [total, sketch.constant(0, np.float32, node=False)])[0]
    (made,) = sketch.add("If", [condition], then_branch=bodies[0], else_branch=bodies[1])
    sketch.keep(made, value.shape)


def split(draw, sketch: Sketch, value: Value) -> None:
    """Into a sequence and back, which turns the parts around its axis."""
    axis = draw(st.integers(0, len(value.shape) - 1))
    assume(value.shape[axis] <= 6)
    (sequence,) = sketch.add("SplitToSequence", [value.name], axis=axis, keepdims=1)
    sketch.keep(sketch.add("ConcatFromSequence", [sequence], axis=axis)[0], value.shape)


def pool(draw, sketch: Sketch, value: Value) -> None:
    assume(len(value.shape) == 4 and min(value.shape[2:]) >= 3)
    dilation = draw(st.sampled_from([1, 2]))
    shape = (*value.shape[:2], *(size - dilation for size in value.shape[2:]))
    options = {"kernel_shape": [2, 2], "dilations": [dilation] * 2, "strides": [1, 1]}
    sketch.keep(sketch.add("MaxPool", [value.name], **options)[0], shape)


def pad(draw, sketch: Sketch, value: Value) -> None:
    assume(len(value.shape) == 4 and min(value.shape[2:]) >= 2)
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    pads = sketch.constant([0, 0, 1, 0, 0, 0, 0, 1], np.int64, node=draw(st.booleans()))
    shape = (*value.shape[:2], value.shape[2] + 1, value.shape[3] + 1)
    sketch.keep(sketch.add("Pad", [value.name, pads], mode=mode)[0], shape)


def quantize(draw, sketch: Sketch, value: Value) -> None:
    """With zero points that TensorRT has, or that move to 0 exactly; others are requantized, which is another model."""
    zero = draw(st.sampled_from([(0, np.int8), (128, np.uint8)]))
    scale = sketch.constant(0.05, np.float32, node=False)
    point = sketch.constant(*zero, node=False)
    (small,) = sketch.add("QuantizeLinear", [value.name, scale, point])
    sketch.keep(sketch.add("DequantizeLinear", [small, scale, point])[0], value.shape)


STEPS = (
    elementwise,
    resize,
    cut,
    gather,
    concat,
    reshape,
    top_k,
    non_zero,
    suppress,
    scatter,
    einsum,
    cast,
    choose,
    split,
    pool,
    pad,
    quantize,
)


@st.composite
def graphs(draw) -> onnx.ModelProto:
    """One to five of the steps, each on a tensor that is there already."""
    sketch = Sketch()
    for _ in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from(STEPS))
        step(draw, sketch, draw(st.sampled_from(sketch.values)))
    for value in draw(st.lists(st.sampled_from(sketch.values), max_size=2, unique=True)):
        if value.name not in "xvm":
            sketch.leave(value.name, FLOAT)
    if not sketch.outputs:
        last = sketch.values[-1]
        sketch.leave(sketch.add("Identity", [last.name])[0], FLOAT)
    graph = helper.make_graph(
        sketch.nodes,
        "drawn",
        [helper.make_tensor_value_info(one.name, FLOAT, one.shape) for one in Sketch().values],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in sketch.outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in sketch.constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def feed(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        value.name: rng.standard_normal([size.dim_value for size in value.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for value in model.graph.input
    }


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, allowed: float) -> None:
    """On inputs that the proof inside surgery did not see."""
    old, new = Model(before), Model(after)
    kept = {value.name for value in after.graph.input}
    for seed in (101, 102):
        inputs = feed(before, seed)
        expected = old(inputs)
        found = new({name: value for name, value in inputs.items() if name in kept})
        for name, value in expected.items():
            error = difference(value, found[name], padded=value.shape != found[name].shape)
            assert error <= allowed, f"output {name} differs by {error}"


ROUNDS_LESS = (28,)
"""Rows that take a rounding out on purpose, which moves numbers by half a step."""


@pytest.mark.parametrize("target", [RTX, Runtime.OPENVINO])
@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(model=graphs())
def test_random_graphs_come_out_untouched_or_equal(target, model):
    try:
        Model(model)(feed(model, 0))
    except EvaluationError:
        assume(False)  # ONNX Runtime lacks some combination, such as a cubic Resize of one pixel
    given = model.SerializeToString(deterministic=True)
    after, report = operate(model, target, skip=ROUNDS_LESS)
    assert model.SerializeToString(deterministic=True) == given, "the given model was changed"
    failed = [record for record in report.records if "failed on this graph" in record.why]
    assert not failed, failed
    taken_back = [record for record in report.records if record.outcome is Outcome.ROLLED_BACK]
    assert not taken_back, taken_back
    if not report.done:
        assert after is model
        return
    assert_same(model, after, 1e-5)
    again, second = operate(after, target, skip=ROUNDS_LESS)
    assert second.done == []
    assert again is after


def test_a_pattern_that_no_output_needs_is_no_reason_to_take_anything_back():
    """The piece leaves with the dead node, so that there is nothing to compare it with."""
    nodes = [
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("NonZero", ["r"], ["where"]),
        helper.make_node("Transpose", ["where"], ["columns"], perm=[1, 0]),
        helper.make_node("GatherND", ["m", "columns"], ["picked"]),
        helper.make_node("ReduceSum", ["picked"], ["nobody_reads_it"], keepdims=1),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, FLOAT, [3, 4]) for name in "my"]
    graph = helper.make_graph(nodes, "dead", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    after, report = operate(model, RTX)
    assert {record.outcome for record in report.records} == {Outcome.DONE}
    assert [node.op_type for node in after.graph.node] == ["Relu"]
