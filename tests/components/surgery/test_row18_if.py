"""Row 18: If, mostly of a squeeze whose dimension the exporter did not know."""

import numpy as np
import pytest
import torch
from onnx import helper
from surgery_graphs import BOOL, FLOAT, assert_untouched, export, make_model, needs_rtx, ops, rtx, surgered, worst
from torch import nn

from components.core.contracts.job import Runtime
from components.surgery.operate import operate
from components.surgery.surgery import Outcome


class Squeezed(nn.Module):
    def forward(self, x):
        return torch.relu(x.squeeze(1)) * 2


def squeezed(axes=("n", "c")):
    names = {index: name for index, name in enumerate(axes) if name}
    return export(Squeezed(), torch.rand(3, 1, 4), input_names=["x"], output_names=["y"], dynamic_axes={"x": names})


def branch(name, nodes, output):
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, FLOAT, None)])


def chooses(condition):
    """``y = (x + 1) * 3 if condition else -x``; the branches read x and a constant from outside, and share names."""
    one = helper.make_node("Add", ["x", "one"], ["inner"], name="step")
    then = branch("then", [one, helper.make_node("Mul", ["inner", "three"], ["result"])], "result")
    other = branch("else", [helper.make_node("Neg", ["x"], ["inner"], name="step")], "inner")
    node = helper.make_node("If", ["condition"], ["chosen"], name="choose", then_branch=then, else_branch=other)
    after = helper.make_node("Add", ["chosen", "one"], ["y"])
    constants = {"one": np.array(1, np.float32), "three": np.array(3, np.float32)}
    inputs = {"x": (FLOAT, [2, 3])}
    if condition is None:
        inputs["condition"] = (BOOL, [])
    else:
        constants["condition"] = np.array(condition)
    return make_model([node, after], inputs, {"y": (FLOAT, [2, 3])}, constants)


def feeds(*shapes):
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for shape in shapes]


def test_a_squeezed_open_dimension_is_pinned():
    before = squeezed()
    assert "If" in ops(before)
    after, report = operate(before, Runtime.TENSORRT)
    assert "If" not in ops(surgered(before))
    (record,) = [record for record in report.records if record.row == 18]
    assert record.outcome is Outcome.DONE
    assert "dimension 1 of input 'x' is pinned to 1" in record.what
    assert [size.dim_value for size in after.graph.input[0].type.tensor_type.shape.dim] == [0, 1, 4]
    assert worst(before, after, feeds((3, 1, 4), (1, 1, 4), (7, 1, 4))) == 0


@needs_rtx
def test_tensorrt_fails_on_the_rank_mismatch_and_builds_the_result():
    verdict = rtx(squeezed())
    assert verdict.stage == "build"
    assert "Must have inputs with equal ranks when condition is not a build-time constant" in verdict.words
    assert rtx(surgered(squeezed()))[::2] == ("ok", 0)


def test_a_dimension_known_by_the_shapes_folds_the_branch():
    before = squeezed()
    dimensions = before.graph.input[0].type.tensor_type.shape.dim
    dimensions[1].dim_value = 1
    after = surgered(before)
    assert "If" not in ops(after)
    assert worst(before, after, feeds((3, 1, 4))) == 0


def test_a_constant_condition_moves_its_branch_into_the_graph():
    for condition in (True, False):
        before = chooses(condition)
        for runtime in (Runtime.TENSORRT_RTX, Runtime.OPENVINO):
            after = surgered(before, runtime)
            assert "If" not in ops(after)
            assert worst(before, after, feeds((2, 3))) == 0


def test_two_ifs_of_one_exporter_do_not_mix_their_names():
    one, two = chooses(True), chooses(True)
    prefixed = helper.make_model(one.graph, opset_imports=one.opset_import, ir_version=8)
    second = two.graph.node[0]
    second.output[0], second.name = "again", ""
    prefixed.graph.node.insert(1, second)
    prefixed.graph.node[2].input[1] = "again"
    after = surgered(prefixed)
    assert worst(prefixed, after, feeds((2, 3))) == 0


def ranks_differ():
    """A branch gives [2, 3] and the other [6]."""
    then = branch("then", [helper.make_node("Relu", ["x"], ["kept"])], "kept")
    other = branch("else", [helper.make_node("Reshape", ["x", "flat"], ["row"])], "row")
    node = helper.make_node("If", ["condition"], ["y"], name="choose", then_branch=then, else_branch=other)
    inputs = {"x": (FLOAT, [2, 3]), "condition": (BOOL, [])}
    return make_model([node], inputs, {"y": (FLOAT, None)}, {"flat": np.array([6])})


def test_branches_of_other_ranks_and_a_condition_that_depends_on_the_input_are_refused():
    before = ranks_differ()
    after, report = operate(before, Runtime.TENSORRT)
    assert after is before
    (record,) = report.records
    assert "depends on the input" in record.why
    assert "target.input_shape" in record.what


@pytest.mark.parametrize("runtime", [Runtime.OPENVINO, Runtime.ONNXRUNTIME])
def test_a_runtime_that_takes_such_an_if_hears_nothing_of_it(runtime):
    assert operate(ranks_differ(), runtime)[1].records == []


@needs_rtx
def test_branches_of_one_rank_are_nothing_to_report():
    before = chooses(None)
    after, report = operate(before, Runtime.TENSORRT_RTX)
    assert after is before
    assert report.records == []
    assert rtx(before).stage == "ok"
    assert rtx(ranks_differ()).stage == "build"


def test_graphs_without_the_pattern_are_untouched():
    assert_untouched(make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [3])}, {"y": (FLOAT, [3])}), 18)
