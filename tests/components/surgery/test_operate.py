"""The whole operation: taking back what fails its proof, leaving alone what has no pattern, surviving damaged files."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, INT64, make_model, surgered, worst
from test_row12_nms import nms_model
from test_row14_roi_align import roi_model
from test_row18_if import chooses

from components.core.contracts.job import Runtime
from components.surgery import operate as operate_module
from components.surgery.operate import operate
from components.surgery.report import SurgeryReport, to_markdown
from components.surgery.surgery import EVERY_TARGET, Change, Outcome, Surgery


def two_relus():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["y"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["z"], name="sum"),
    ]
    return make_model(nodes, {"x": (FLOAT, [4]), "y": (FLOAT, [4])}, {"z": (FLOAT, [4])})


def relu_surgery(wrong=(), *, border=True, row=99):
    """Relu -> Abs (for nodes in `wrong`, which is another function) or -> Max with 0."""

    def apply(graph, options):
        changes = []
        for node in graph.nodes:
            if node.op != "Relu" or node.name in options.skip:
                continue
            bad = node.name in wrong
            node.op = "Abs" if bad else "Clip"
            if not bad:
                node.attrs.clear()
                import onnx_graphsurgeon as gs

                node.inputs.append(gs.Constant(f"{node.name}/zero", np.array(0, np.float32)))
            border_of = {"inputs": (node.inputs[0].name,), "outputs": (node.outputs[0].name,)} if border else {}
            changes.append(Change(node.name, "a reason", "a deed", **border_of))
        return changes

    def matches(graph):
        return any(node.op == "Relu" for node in graph.nodes)

    return Surgery(row=row, name="test", thread="none", matches=matches, apply=apply, targets=EVERY_TARGET)


def with_surgeries(monkeypatch, *surgeries):
    monkeypatch.setattr(operate_module, "SURGERIES", surgeries)


def test_a_replacement_that_moves_the_numbers_is_taken_back_alone(monkeypatch):
    with_surgeries(monkeypatch, relu_surgery(wrong={"second"}))
    before = two_relus()
    after, report = operate(before, Runtime.TENSORRT)
    assert [node.op_type for node in after.graph.node if node.name != "sum"] == ["Clip", "Relu"]
    outcomes = {record.node: record for record in report.records}
    assert outcomes["first"].outcome is Outcome.DONE
    assert outcomes["first"].max_error == 0
    assert outcomes["second"].outcome is Outcome.ROLLED_BACK
    assert outcomes["second"].max_error > 0.1
    assert "taken back" in outcomes["second"].note
    rng = np.random.default_rng(0)
    assert worst(before, after, [{name: rng.standard_normal(4).astype(np.float32) for name in "xy"}]) == 0


def test_without_a_border_the_whole_surgery_is_taken_back(monkeypatch):
    with_surgeries(monkeypatch, relu_surgery(wrong={"second"}, border=False))
    before = two_relus()
    after, report = operate(before, Runtime.TENSORRT)
    assert after is before
    assert {record.outcome for record in report.records} == {Outcome.ROLLED_BACK}


def test_a_graph_that_does_not_run_any_more_is_taken_back(monkeypatch):
    def apply(graph, options):
        graph.nodes[0].op = "Det"
        return [Change("first", "a reason", "a deed")]

    broken = Surgery(99, "broken", "none", lambda graph: graph.nodes[0].op == "Relu", apply, EVERY_TARGET)
    with_surgeries(monkeypatch, broken)
    before = two_relus()
    after, report = operate(before, Runtime.TENSORRT)
    assert after is before
    assert "does not run" in report.records[0].note


def test_a_surgery_that_says_it_did_nothing_changes_nothing(monkeypatch):
    def apply(graph, options):
        graph.nodes[0].op = "Abs"
        return [Change("first", "cannot", "a way out", outcome=Outcome.REFUSED)]

    with_surgeries(monkeypatch, Surgery(99, "shy", "none", lambda graph: True, apply, EVERY_TARGET))
    before = two_relus()
    after, report = operate(before, Runtime.TENSORRT)
    assert after is before
    assert report.records[0].outcome is Outcome.REFUSED


def with_a_plugin(position, reads, makes):
    model = two_relus()
    model.graph.node.insert(position, helper.make_node("EfficientNMS_TRT", [reads], [makes], domain="TRT"))
    model.opset_import.append(helper.make_opsetid("TRT", 1))
    return model


def test_what_cannot_be_compared_says_so(monkeypatch):
    with_surgeries(monkeypatch, relu_surgery())
    model = with_a_plugin(0, "x", "p")
    model.graph.node[1].input[0] = "p"
    model.graph.node[2].input[0] = "p"
    _, report = operate(model, Runtime.TENSORRT)
    assert {record.max_error for record in report.records} == {None}
    assert all("does not run in ONNX Runtime" in record.note for record in report.records)


def test_what_comes_before_a_plugin_is_compared(monkeypatch):
    with_surgeries(monkeypatch, relu_surgery(wrong={"second"}))
    model = with_a_plugin(3, "z", "w")
    model.graph.output.append(helper.make_tensor_value_info("w", FLOAT, None))
    _, report = operate(model, Runtime.TENSORRT)
    records = {record.node: record for record in report.records}
    assert (records["first"].outcome, records["first"].max_error) == (Outcome.DONE, 0)
    assert records["second"].outcome is Outcome.ROLLED_BACK


def test_rows_can_be_chosen_and_left_out():
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=2.0),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    model = make_model(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})
    assert operate(model, Runtime.TENSORRT, only=[12])[0] is model
    assert operate(model, Runtime.TENSORRT, skip=[0])[0] is model
    assert len(operate(model, Runtime.TENSORRT, only=[0])[0].graph.node) == 1


def test_metadata_survives_and_functions_are_written_out():
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=2.0),
        helper.make_node("Scale", ["x", "c"], ["y"], domain="mine", name="scaled"),
    ]
    model = make_model(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})
    body = [helper.make_node("Mul", ["a", "b"], ["p"])]
    model.functions.append(
        helper.make_function("mine", "Scale", ["a", "b"], ["p"], body, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.metadata_props.add(key="names", value="{0: 'tree'}")
    model.doc_string = "a model"
    after, report = operate(model, Runtime.OPENVINO)
    assert (41, "model functions") in [(record.row, record.node) for record in report.done]
    assert after.doc_string == "a model"
    assert [(entry.key, entry.value) for entry in after.metadata_props] == [("names", "{0: 'tree'}")]
    assert not after.functions
    assert [node.op_type for node in after.graph.node] == ["Mul"]
    assert worst(model, after, [{"x": np.ones(2, np.float32)}]) == 0


def test_the_report_is_json_and_a_table():
    nodes = [helper.make_node("NonZero", ["x"], ["a | b"], name="`n`")]
    model = make_model(nodes, {"x": (FLOAT, ["n"])}, {"a | b": (INT64, None)})
    _, report = operate(model, Runtime.TENSORRT)
    assert SurgeryReport.model_validate_json(report.model_dump_json()) == report
    page = to_markdown({"surgery-tensorrt": report})
    (row,) = [line for line in page.splitlines() if line.startswith("| 15")]
    assert row.count("|") - row.count("\\|") == 8
    assert "refused" in row
    untouched = to_markdown({"x": operate(two_relus(), Runtime.TENSORRT)[1]})
    assert "the graph is untouched" in untouched


UNARY = ("Relu", "Neg", "Abs", "Sigmoid", "Identity", "Exp", "Shape")
BINARY = ("Add", "Mul", "Sub", "Max", "MatMul")


@st.composite
def small_graphs(draw):
    """Random graphs of float operators on [3, 3], with constants, shape arithmetic and dead ends."""
    tensors, floats, nodes, constants = ["x"], ["x"], [], {}
    for number in range(draw(st.integers(1, 10))):
        name = f"t{number}"
        kind = draw(st.sampled_from(("unary", "binary", "constant", "node constant")))
        if kind == "unary":
            op = draw(st.sampled_from(UNARY))
            nodes.append(
                helper.make_node(op, [draw(st.sampled_from(floats))], [name], name=draw(st.sampled_from(["", name])))
            )
            if op == "Shape":
                nodes.append(helper.make_node("Cast", [name], [f"{name}f"], to=FLOAT))
                nodes.append(helper.make_node("ReduceSum", [f"{name}f"], [f"{name}s"], keepdims=0))
                nodes.append(helper.make_node("Add", [f"{name}s", "x"], [f"{name}x"]))
                name = f"{name}x"
        elif kind == "binary":
            pair = [draw(st.sampled_from(floats)) for _ in range(2)]
            nodes.append(helper.make_node(draw(st.sampled_from(BINARY)), pair, [name]))
        elif kind == "constant":
            constants[name] = np.random.default_rng(number).standard_normal((3, 3)).astype(np.float32)
        else:
            value = helper.make_tensor(f"{name}v", FLOAT, [3, 3], [0.1 * number] * 9)
            nodes.append(helper.make_node("Constant", [], [name], value=value))
        floats.append(name)
        tensors.append(name)
    made = [name for name in floats if name not in constants and name != "x"]
    outputs = (
        {name: (FLOAT, [3, 3]) for name in draw(st.lists(st.sampled_from(made), min_size=1, unique=True))}
        if made
        else {}
    )
    if not outputs:
        nodes.append(helper.make_node("Relu", ["x"], ["y"]))
        outputs = {"y": (FLOAT, [3, 3])}
    return make_model(nodes, {"x": (FLOAT, [3, 3])}, outputs, constants)


@settings(max_examples=80, deadline=None)
@given(small_graphs())
def test_random_graphs_pass_untouched_or_equal(model):
    after = surgered(model)
    feeds = [{"x": np.random.default_rng(seed).standard_normal((3, 3)).astype(np.float32)} for seed in range(2)]
    assert worst(model, after, feeds) < 1e-6


FLIPS = """
import sys
from pathlib import Path

import numpy as np

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.onnx_files import load_onnx
from components.surgery.operate import operate

source, progress = Path(sys.argv[1]), Path(sys.argv[2])
whole = np.frombuffer(source.read_bytes(), np.uint8)
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    rng, damaged = np.random.default_rng(seed), whole.copy()
    for position in rng.integers(0, len(whole), rng.integers(1, 4)):
        damaged[position] ^= np.uint8(1 << rng.integers(0, 8))
    path = source.with_name("damaged.onnx")
    path.write_bytes(damaged.tobytes())
    outcome = "operated"
    try:
        operate(load_onnx(path), Runtime.TENSORRT_RTX, seeds=(0,))
    except UserError as error:
        outcome = "refused" if len(str(error).splitlines()) == 1 else "refused in several lines"
    with progress.open("a") as stream:
        stream.write(f"{seed} {outcome}\\n")
"""


@pytest.mark.parametrize("name", ["nms", "roi_align", "if"])
def test_bit_flips_are_refused_in_one_line_or_operated_on(name, tmp_path):
    """Only ONNX Runtime's native code may die of a damaged graph, which is why the step runs it in a process apart."""
    models = {"nms": nms_model(1, 1, 8, 0.5), "roi_align": roi_model(2, 2, 8, 8, 4), "if": chooses(True)}
    source, progress = tmp_path / "model.onnx", tmp_path / "progress"
    source.write_bytes(models[name].SerializeToString())
    progress.touch()
    count, deaths = 130, 0
    while (done := len(progress.read_text().splitlines()) + deaths) < count:
        command = [sys.executable, "-c", FLIPS, str(source), str(progress), str(done), str(count)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if finished.returncode < 0:
            deaths += 1
        else:
            assert finished.returncode == 0, finished.stderr
    outcomes = Counter(line.split(" ", 1)[1] for line in progress.read_text().splitlines())
    assert set(outcomes) == {"operated", "refused"}
    assert min(outcomes.values()) > 20
    assert deaths < 5
