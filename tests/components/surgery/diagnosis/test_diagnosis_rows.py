"""Every operator of the table that TensorRT-RTX refuses, by its real words, is mapped to its row."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from refused_graphs import FLOAT, IMAGE, REFUSED, WITHOUT_ROW, model_of, node, one

from components.core.contracts.job import Runtime
from components.core.tensorrt_tools.rules import RULES
from components.surgery.diagnosis import documented, tensorrt_probe
from components.surgery.diagnosis.diagnose import finding_of
from components.surgery.diagnosis.verdict import Finding, Seen, Stage

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra tensorrt-rtx)")
RTX = Runtime.TENSORRT_RTX
BUILD_ROWS = {12, 16, 18, 34}


def findings(model: onnx.ModelProto, folder: Path, build: bool = True) -> list[Finding]:
    """Of the real parser and builder, in this process."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    answer = tensorrt_probe.examine("tensorrt_rtx", path, build, {}, folder / "trace.txt", lambda answer: None)
    return [finding_of(failure, RTX) for failure in answer["failures"]]


@pytest.mark.parametrize(("row", "model"), [pytest.param(r, m, id=f"{r:02} {n}") for r, n, m in REFUSED])
def test_what_tensorrt_rtx_refuses_is_mapped_to_its_row(tmp_path, row, model):
    found = findings(model, tmp_path)
    (of_it, *_) = [finding for finding in found if finding.node == "it"]
    assert of_it.row == row
    assert of_it.stage is (Stage.BUILD if row in BUILD_ROWS else Stage.PARSE)
    assert of_it.seen is Seen.SAID
    assert of_it.rule
    assert of_it.way_out
    assert of_it.words
    assert "Error Code" not in of_it.words
    assert "/_src/" not in of_it.words
    assert of_it.source or row in BUILD_ROWS
    # What else is said, such as of an input of strings, belongs to a row as well.
    assert all(finding.row is not None for finding in found)


@pytest.mark.parametrize(("name", "model"), WITHOUT_ROW, ids=[name for name, _ in WITHOUT_ROW])
def test_what_no_row_is_about_still_has_a_way_out(tmp_path, name, model):
    (found,) = findings(model, tmp_path)
    assert (found.node, found.operator, found.row) == ("it", name, None)
    assert found.way_out
    assert found.rule in {rule.refused for rule in RULES}


def test_an_input_is_named_with_its_type(tmp_path):
    model = one("Neg", {"x": (onnx.TensorProto.UINT32, [3])}, {"y": onnx.TensorProto.UINT32})
    found = findings(model, tmp_path)[0]
    assert (found.node, found.row) == ("input x", 10)
    assert found.words.startswith("its type is UINT32. ")


@pytest.mark.parametrize(
    ("kind", "operator", "row"), [("sequence", "ConcatFromSequence", 19), ("optional", "OptionalGetElement", 38)]
)
def test_an_input_that_is_no_tensor_is_named_as_what_it_is(tmp_path, kind, operator, row):
    attributes = {"axis": 0} if kind == "sequence" else {}
    model = one(operator, {"x": (onnx.TensorProto.FLOAT, [3])}, {"y": onnx.TensorProto.FLOAT}, opset=18, **attributes)
    inner = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [3])
    make = onnx.helper.make_sequence_type_proto if kind == "sequence" else onnx.helper.make_optional_type_proto
    model.graph.input[0].type.CopyFrom(make(inner))
    found = {finding.node: finding for finding in findings(model, tmp_path)}
    assert found["input x"].row == row
    assert found["input x"].words.startswith(f"its type is {kind}. ")


def test_weights_that_are_stored_sparse_are_no_missing_operator(tmp_path):
    model = one("MatMul", {"x": (onnx.TensorProto.FLOAT, [2, 3])}, {"y": onnx.TensorProto.FLOAT}, order=["x", "w"])
    parts = [onnx.numpy_helper.from_array(np.array(values), "w") for values in (np.ones(2, np.float32), [1, 5])]
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(*parts, [3, 3]))
    (found,) = findings(model, tmp_path)
    assert (found.node, found.row) == ("it", 41)
    assert "sparse" in found.rule


def test_what_is_fine_has_no_findings(tmp_path):
    assert findings(one("Relu", {"x": IMAGE}, {"y": FLOAT}), tmp_path) == []


DOCUMENTED = [(row, name, model) for row, name, model in REFUSED if row not in (12, 13, 14, 15, 34, 39)]
UNDOCUMENTED = {"ScatterElements add", "ScatterElements max", "ScatterElements min", "If"}


@pytest.mark.parametrize(
    ("row", "model"), [pytest.param(r, m, id=f"{r:02} {n}") for r, n, m in DOCUMENTED if n not in UNDOCUMENTED]
)
def test_the_documentation_of_tensorrt_says_the_same(tmp_path, row, model):
    onnx.save(model, tmp_path / "model.onnx")
    answer = documented.examine(tmp_path / "model.onnx")
    found = [finding_of(failure, Runtime.TENSORRT) for failure in answer["failures"]]
    assert row in {finding.row for finding in found if finding.node == "it" and finding.refused}
    assert {finding.seen for finding in found} == {Seen.DOCUMENTED}
    assert (answer["parses"], answer["builds"]) == (False, None)


@pytest.mark.parametrize("name", ["NonMaxSuppression", "RoiAlign", "NonZero", "EfficientNMS_TRT", "DeformConv"])
def test_what_only_tensorrt_rtx_lacks_is_not_held_against_tensorrt(tmp_path, name):
    model = next(model for _, listed, model in REFUSED if listed == name)
    onnx.save(model, tmp_path / "model.onnx")
    answer = documented.examine(tmp_path / "model.onnx")
    assert [failure for failure in answer["failures"] if failure["refused"]] == []
    assert answer["parses"] is None
    assert "not installed here" in answer["note"]


def test_a_doubtful_type_is_no_refusal(tmp_path):
    model = one("Softmax", {"x": (onnx.TensorProto.INT32, [3])}, {"y": onnx.TensorProto.INT32})
    onnx.save(model, tmp_path / "model.onnx")
    (failure,) = documented.examine(tmp_path / "model.onnx")["failures"]
    assert not failure["refused"]
    assert "Softmax of INT32 is not among the documented types" in failure["words"]


def test_documented_branches_must_have_one_rank(tmp_path):
    def branch(made, rank):
        value = onnx.helper.make_tensor_value_info(made, FLOAT, [1] * rank)
        return onnx.helper.make_graph([node("Identity", ["x"], [made])], made, [], [value])

    for ranks, refused in (((1, 1), False), ((1, 2), True)):
        branches = {"then_branch": branch("t", ranks[0]), "else_branch": branch("e", ranks[1])}
        it = node("If", ["c"], ["y"], name="it", **branches)
        model = model_of([it], {"x": (FLOAT, [1]), "c": (onnx.TensorProto.BOOL, [])}, {"y": (FLOAT, None)})
        onnx.save(model, tmp_path / "model.onnx")
        failures = documented.examine(tmp_path / "model.onnx")["failures"]
        assert [finding_of(one, Runtime.TENSORRT).row for one in failures] == ([18] if refused else [])
