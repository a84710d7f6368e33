"""Surgery inside of the bodies of If, Loop and Scan."""

import numpy as np
import onnx
import pytest
from onnx import helper
from surgery_graphs import BOOL, FLOAT, INT64, RTX, make_model, surgered, worst

from components.core.contracts.job import Runtime
from components.surgery import operate as operate_module
from components.surgery.graphs import to_graph, to_model
from components.surgery.operate import operate
from components.surgery.surgery import EVERY_TARGET, Change, Outcome, Surgery, label


def value(name, kind=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def looped(nodes, carried="x", result="out", constants=None, shape=(2, 3)):
    """``for _ in range(trips): state = body(state)``; the nodes make `result` of ``state``; trips is an input."""
    shape = list(shape)
    body = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["go"], ["still"])],
        "body",
        [value("i", INT64, []), value("go", BOOL, []), value("state", FLOAT, shape)],
        [value("still", BOOL, []), value(result, FLOAT, shape)],
    )
    loop = helper.make_node("Loop", ["trips", "", carried], ["y"], name="loop", body=body)
    inputs = {"x": (FLOAT, shape), "trips": (INT64, [])}
    return make_model([loop], inputs, {"y": (FLOAT, shape)}, constants)


def branched(then, other, constants=None, shape=(2, 3)):
    """``then if condition else other``, both of ``x``."""
    branches = {
        f"{name}_branch": helper.make_graph(nodes, name, [], [value(nodes[-1].output[0])])
        for name, nodes in (("then", then), ("else", other))
    }
    node = helper.make_node("If", ["condition"], ["y"], name="choose", **branches)
    inputs = {"x": (FLOAT, list(shape)), "condition": (BOOL, [])}
    return make_model([node], inputs, {"y": (FLOAT, None)}, constants)


def body_of(model, attribute="body"):
    """The graph of the first node that has one."""
    for node in model.graph.node:
        for found in node.attribute:
            if found.name == attribute:
                return found.g
    raise AssertionError(f"no {attribute}")


def body_ops(model, attribute="body"):
    return [node.op_type for node in body_of(model, attribute).node]


def feeds(shape, **others):
    others = others or {"trips": np.array(3)}
    return [{"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)} | others]


def test_constants_fold_in_a_loop():
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=2.0),
        helper.make_node("Add", ["c", "outer"], ["d"]),
        helper.make_node("Mul", ["state", "d"], ["out"]),
    ]
    before = looped(nodes, constants={"outer": np.array(0.5, np.float32)})
    for target in (RTX, Runtime.OPENVINO):
        after = surgered(before, target)
        assert body_ops(after) == ["Mul", "Identity"]
        assert worst(before, after, feeds((2, 3))) == 0


def test_folding_in_a_body_says_where():
    before = looped(
        [
            helper.make_node("Constant", [], ["c"], value_float=2.0),
            helper.make_node("Mul", ["state", "c"], ["out"]),
        ]
    )
    _, report = operate(before, RTX, only=[0])
    assert [(record.node, record.max_error) for record in report.records] == [("body of loop", 0)]


def test_shapes_from_around_fold_in_a_branch():
    """x is [2, 3] outside of the branch, which is all that its shape arithmetic needs."""
    then = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=FLOAT),
        helper.make_node("ReduceSum", ["sizes"], ["five"], keepdims=0),
        helper.make_node("Mul", ["x", "five"], ["a"]),
    ]
    before = branched(then, [helper.make_node("Neg", ["x"], ["b"])])
    after = surgered(before)
    assert body_ops(after, "then_branch") == ["Mul"]
    assert worst(before, after, [feed for c in (True, False) for feed in feeds((2, 3), condition=np.array(c))]) == 0


def test_a_scan_in_a_loop():
    inner = helper.make_graph(
        [
            helper.make_node("Constant", [], ["two"], value_float=2.0),
            helper.make_node("Constant", [], ["three"], value_float=3.0),
            helper.make_node("Mul", ["two", "three"], ["six"]),
            helper.make_node("Mul", ["row", "six"], ["scaled"]),
        ],
        "scan_body",
        [value("row", FLOAT, [3])],
        [value("scaled", FLOAT, [3])],
    )
    before = looped([helper.make_node("Scan", ["state"], ["out"], name="scan", body=inner, num_scan_inputs=1)])
    after = surgered(before, Runtime.OPENVINO)
    (scan,) = [node for node in body_of(after).node if node.op_type == "Scan"]
    assert [node.op_type for node in scan.attribute[0].g.node] == ["Mul"]
    assert worst(before, after, feeds((2, 3))) == 0


def test_resize_in_a_loop_gets_constant_scales():
    nodes = [
        helper.make_node("Identity", ["factors"], ["scales"]),
        helper.make_node("Resize", ["state", "", "scales"], ["out"], name="resize", mode="nearest"),
    ]
    before = looped(nodes, constants={"factors": np.ones(4, np.float32)}, shape=(1, 1, 4, 4))
    after = surgered(before)
    assert "Identity" not in body_ops(after)[:-1]
    assert worst(before, after, feeds((1, 1, 4, 4))) == 0


def nms_branch():
    """A keep-mask of boxes in a branch: ones where NonMaxSuppression selects."""
    return [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["selected"], name="nms"),
        helper.make_node("Slice", ["selected", "two", "three", "one"], ["column"]),
        helper.make_node("ScatterND", ["zeros", "column", "ones"], ["scattered"]),
        helper.make_node("Mul", ["x", "scattered"], ["kept"]),
    ]


def test_an_nms_in_a_branch_is_replaced():
    count = 6
    nodes = nms_branch()
    nodes[2:3] = [
        helper.make_node("Shape", ["column"], ["rows"], start=0, end=1),
        helper.make_node("Expand", ["fone", "rows"], ["ones"]),
        nodes[2],
    ]
    constants = {
        "most": np.array([count]),
        "iou": np.array([0.5], np.float32),
        "one": np.array([1]),
        "two": np.array([2]),
        "three": np.array([3]),
        "zeros": np.zeros(count, np.float32),
        "fone": np.array(1, np.float32),
    }
    then = helper.make_graph(nodes, "then", [], [value("kept")])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["negative"])], "else", [], [value("negative")])
    node = helper.make_node("If", ["condition"], ["y"], name="choose", then_branch=then, else_branch=other)
    inputs = {
        "x": (FLOAT, [count]),
        "boxes": (FLOAT, [1, count, 4]),
        "scores": (FLOAT, [1, 1, count]),
        "condition": (BOOL, []),
    }
    before = make_model([node], inputs, {"y": (FLOAT, None)}, constants)
    after, report = operate(before, RTX, only=[0, 12])
    assert Outcome.DONE in {record.outcome for record in report.records if record.row == 12}
    assert "NonMaxSuppression" not in body_ops(after, "then_branch")
    rng = np.random.default_rng(0)
    for condition in (True, False):
        corner = rng.random((1, count, 2), np.float32)
        feed = {
            "x": rng.random(count, np.float32),
            "boxes": np.concatenate([corner, corner + 0.5], -1).astype(np.float32),
            "scores": rng.random((1, 1, count), np.float32),
            "condition": np.array(condition),
        }
        assert worst(before, after, [feed]) == 0


def test_what_would_change_a_bodys_outputs_is_refused(monkeypatch):
    """Such as rows that get an output saying how many of them are real: the If around has no place for it."""

    def apply(graph, options):
        changes = []
        for node in [node for node in graph.nodes if node.op == "Relu" and label(node) not in options.skip]:
            graph.outputs.append(node.inputs[0])
            node.op = "Abs"
            changes.append(Change(label(node), "a reason", "a deed"))
        return changes

    greedy = Surgery(99, "greedy", "none", lambda graph: any(n.op == "Relu" for n in graph.nodes), apply, EVERY_TARGET)
    monkeypatch.setattr(operate_module, "SURGERIES", (greedy,))
    before = looped([helper.make_node("Relu", ["state"], ["out"], name="relu")])
    after, report = operate(before, RTX)
    assert after is before
    (record,) = report.records
    assert record.outcome is Outcome.REFUSED
    assert "number of outputs of the body of loop" in record.why


def relus(wrong):
    """Relu -> Max with 0, or Abs for the nodes in `wrong`."""

    def apply(graph, options):
        changes = []
        for node in graph.nodes:
            if node.op == "Relu" and label(node) not in options.skip:
                node.op = "Abs" if node.name in wrong else "LeakyRelu"
                node.attrs["alpha"] = 0.0
                if node.op == "Abs":
                    node.attrs.clear()
                border = {"inputs": (node.inputs[0].name,), "outputs": (node.outputs[0].name,)}
                changes.append(Change(label(node), "a reason", "a deed", **border))
        return changes

    return Surgery(99, "test", "none", lambda graph: any(n.op == "Relu" for n in graph.nodes), apply, EVERY_TARGET)


def test_a_wrong_change_in_a_body_is_taken_back_and_right_ones_around_it_stay(monkeypatch):
    monkeypatch.setattr(operate_module, "SURGERIES", (relus(wrong={"inside"}),))
    before = looped([helper.make_node("Relu", ["state"], ["out"], name="inside")], carried="r")
    before.graph.node.insert(0, helper.make_node("Neg", ["x"], ["n"]))
    before.graph.node.insert(1, helper.make_node("Relu", ["n"], ["s"], name="around"))
    before.graph.node.insert(2, helper.make_node("Neg", ["s"], ["r"]))
    after, report = operate(before, RTX)
    records = {record.node: record for record in report.records}
    assert records["around"].outcome is Outcome.DONE
    assert records["inside"].outcome is Outcome.ROLLED_BACK
    assert body_ops(after)[0] == "Relu"
    assert worst(before, after, feeds((2, 3))) == 0


def test_a_change_in_a_branch_that_breaks_the_model_is_taken_back(monkeypatch):
    def apply(graph, options):
        graph.nodes[0].op = "Det"
        return [Change("first", "a reason", "a deed", inputs=("x",), outputs=("a",))]

    def matches(graph):
        return any(node.op == "Neg" for node in graph.nodes)

    monkeypatch.setattr(operate_module, "SURGERIES", (Surgery(99, "broken", "none", matches, apply, EVERY_TARGET),))
    before = branched([helper.make_node("Neg", ["x"], ["a"])], [helper.make_node("Abs", ["x"], ["b"])])
    after, report = operate(before, RTX)
    assert after is before
    assert "does not run" in report.records[0].note


def test_an_unchanged_model_with_bodies_survives_the_way_through_a_graph():
    """Constants stay where they are read, large or small; outputs that come from around stay connected."""
    large = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["state", "large"], ["m"]),
        helper.make_node("Add", ["m", "small"], ["out"]),
    ]
    before = looped(nodes, constants={"large": large, "small": np.array(1, np.float32)}, shape=(2, 40))
    again = to_model(to_graph(before), before)
    onnx.checker.check_model(again, full_check=True)
    assert worst(before, again, feeds((2, 40))) == 0
    held = [tensor.name for tensor in (*again.graph.initializer, *body_of(again).initializer)]
    assert sorted(held) == ["large", "small"]


@pytest.mark.parametrize("target", [RTX, Runtime.OPENVINO])
def test_large_weights_of_a_body_are_compared_too(target):
    large = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32) / 7
    nodes = [
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("MatMul", ["state", "large"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["out"]),
    ]
    before = looped(nodes, shape=(2, 40))
    body = before.graph.node[0].attribute[0].g
    body.initializer.append(onnx.numpy_helper.from_array(large, "large"))
    after = surgered(before, target)
    assert body_ops(after) == ["MatMul", "Mul", "Identity"]
    assert worst(before, after, feeds((2, 40))) == 0
