"""All refusals of a parser that stops at the first one: behind it, beside it, inside of branches and loops."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from refused_graphs import BOOL, FLOAT, IMAGE, INT64, branch, model_of, node

from components.core.contracts.job import Runtime
from components.core.tensorrt_tools.session import Session
from components.surgery.diagnosis import onnxruntime_probe, openvino_probe, tensorrt_probe
from components.surgery.diagnosis.cuts import alone, without
from components.surgery.diagnosis.diagnose import finding_of
from components.surgery.diagnosis.nodes import constants, label, types
from components.surgery.diagnosis.verdict import Finding, Seen, Stage
from components.surgery.graphs import infer_shapes

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")


def rtx(model: onnx.ModelProto, folder: Path, build: bool = True, **shapes: list[int]) -> list[Finding]:
    onnx.save(model, folder / "model.onnx")
    answer = tensorrt_probe.examine(
        "tensorrt_rtx", folder / "model.onnx", build, shapes, folder / "trace.txt", lambda answer: None
    )
    return [finding_of(failure, Runtime.TENSORRT_RTX) for failure in answer["failures"]]


def boxes(count: int = 40) -> onnx.ModelProto:
    """Masks with a NonZero each, an RoiAlign and a Unique behind them, and a NonMaxSuppression at the end."""
    nodes = [node("Relu", ["x"], ["f"], name="relu")]
    for number in range(count):
        nodes.append(node("Greater", ["f", "level"], [f"m{number}"], name=f"greater{number}"))
        nodes.append(node("NonZero", [f"m{number}"], [f"i{number}"], name=f"nonzero{number}"))
    nodes += [
        node("Cast", ["i0"], ["c"], to=FLOAT),
        node("Transpose", ["c"], ["rois"], perm=[1, 0]),
        node(
            "RoiAlign", ["f", "rois", "of"], ["pooled"], name="pool", output_height=2, output_width=2, sampling_ratio=2
        ),
        node("Unique", ["pooled"], ["u"], name="unique"),
        node("NonMaxSuppression", ["b", "s", "k", "t"], ["kept"], name="nms"),
        node("Cast", ["kept"], ["kept_float"], to=FLOAT),
    ]
    constants = {
        "level": np.float32(0.5),
        "of": np.zeros(4, np.int64),
        "k": np.array([5]),
        "t": np.array([0.5], np.float32),
    }
    inputs = {"x": (FLOAT, [1, 3, 8, 8]), "b": (FLOAT, [1, 20, 4]), "s": (FLOAT, [1, 1, 20])}
    outputs = {"u": (FLOAT, None), "kept_float": (FLOAT, None), **{f"i{n}": (INT64, None) for n in range(count)}}
    return model_of(nodes, inputs, outputs, constants)


@needs_rtx
def test_everything_is_found_with_few_questions(tmp_path, monkeypatch):
    asked = []
    real = Session.parse

    def counting(self, model, path=None):
        parsed = real(self, model, path)
        asked.append(len(parsed.errors))
        return parsed

    monkeypatch.setattr(Session, "parse", counting)
    found = {finding.node: finding for finding in rtx(boxes(), tmp_path)}
    assert set(found) == {*(f"nonzero{number}" for number in range(40)), "pool", "unique", "nms"}
    assert {found[f"nonzero{number}"].row for number in range(40)} == {15}
    assert found["nonzero0"].seen is Seen.SAID
    assert {found[f"nonzero{number}"].seen for number in range(1, 40)} == {Seen.LIKEWISE}
    assert (found["pool"].row, found["pool"].seen) == (14, Seen.BEHIND)
    assert (found["unique"].row, found["unique"].seen) == (38, Seen.BEHIND)
    assert (found["nms"].row, found["nms"].stage, found["nms"].seen) == (12, Stage.BUILD, Seen.KNOWN)
    assert len(asked) < 50


@needs_rtx
def test_nodes_without_a_name_are_called_as_surgery_calls_them(tmp_path):
    nodes = [node("Relu", ["x"], ["r"]), node("NonZero", ["r"], ["i"]), node("NonZero", ["x"], ["j"])]
    model = model_of(nodes, {"x": (FLOAT, [3, 4])}, {"i": (INT64, None), "j": (INT64, None)})
    assert [finding.node for finding in rtx(model, tmp_path)] == ["NonZero -> i", "NonZero -> j"]


@needs_rtx
def test_both_branches_are_looked_into(tmp_path):
    branches = {
        "then_branch": branch("Det", "t", "x", name="then"),
        "else_branch": branch("Det", "e", "x", name="else"),
    }
    nodes = [node("If", ["c"], ["y"], name="if", **branches), node("Unique", ["y"], ["z"], name="behind")]
    model = model_of(nodes, {"x": (FLOAT, [3, 3]), "c": (BOOL, [])}, {"z": (FLOAT, None)})
    found = {finding.node: finding.row for finding in rtx(model, tmp_path)}
    assert found == {"then": 38, "else": 38, "behind": 38}


@needs_rtx
def test_a_body_that_is_refused_names_the_node_in_it(tmp_path):
    def body(made):
        value = helper.make_tensor_value_info(made, INT64, None)
        return helper.make_graph([node("NonZero", ["x"], [made], name=f"in_{made}")], made, [], [value])

    it = node("If", ["c"], ["y"], name="if", then_branch=body("t"), else_branch=body("e"))
    model = model_of([it], {"x": (FLOAT, [3, 3]), "c": (BOOL, [])}, {"y": (INT64, None)})
    assert {finding.node for finding in rtx(model, tmp_path)} == {"in_t", "in_e"}


@needs_rtx
def test_a_node_in_a_function_is_named_and_not_the_call(tmp_path):
    function = helper.make_function(
        "mine", "F", ["a"], ["b"], [node("Det", ["a"], ["b"], name="inner")], [helper.make_opsetid("", 17)]
    )
    model = model_of(
        [node("F", ["x"], ["y"], name="call", domain="mine")],
        {"x": (FLOAT, [3, 3])},
        {"y": (FLOAT, None)},
        domains=["mine"],
    )
    model.functions.append(function)
    (found,) = rtx(model, tmp_path)
    assert found.operator == "Det"
    assert found.node.startswith("inner")
    assert found.row == 38


@needs_rtx
def test_a_loop_that_does_not_build_is_the_one_that_grows(tmp_path):
    from refused_graphs import growing

    fine = helper.make_graph(
        [node("Relu", ["a"], ["b"]), node("Identity", ["c"], ["d"])],
        "fine",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("a", FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("d", BOOL, []), helper.make_tensor_value_info("b", FLOAT, [2])],
    )
    model = growing()
    model.graph.node.insert(0, node("Loop", ["k", "t", "other"], ["z"], name="steady", body=fine))
    model.graph.input.append(helper.make_tensor_value_info("other", FLOAT, [2]))
    model.graph.output.append(helper.make_tensor_value_info("z", FLOAT, None))
    (found,) = rtx(model, tmp_path)
    assert (found.node, found.row, found.stage) == ("it", 34, Stage.BUILD)


@needs_rtx
def test_open_dimensions_are_built_at_the_shape_given_or_at_a_few(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["y"], name="conv")]
    weight = {"w": np.ones((4, 3, 3, 3), np.float32)}
    model = model_of(nodes, {"x": (FLOAT, ["n", 3, "h", "w_"])}, {"y": (FLOAT, None)}, weight)
    onnx.save(model, tmp_path / "model.onnx")

    def note(**shapes):
        path, trace = tmp_path / "model.onnx", tmp_path / "trace.txt"
        answer = tensorrt_probe.examine("tensorrt_rtx", path, True, shapes, trace, lambda answer: None)
        assert answer["builds"], answer
        return answer["note"]

    assert note() == "open dimensions at x [1, 3, 64, 64]"
    assert note(x=[2, 3, 32, 40]) == "open dimensions at x [2, 3, 32, 40]"


@needs_rtx
def test_a_size_that_does_not_fit_is_followed_by_others(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"], name="matmul")]
    weight = {"w": np.ones((16, 4), np.float32)}
    model = model_of(nodes, {"x": (FLOAT, ["n", "k"])}, {"y": (FLOAT, None)}, weight)
    assert rtx(model, tmp_path) == []
    (found,) = rtx(model, tmp_path, x=[1, 15])
    assert (found.node, found.stage) == ("matmul", Stage.BUILD)


def test_weights_beside_the_file_are_not_needed_to_find_what_is_refused(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="matmul"),
        node("NonZero", ["m"], ["i"]),
        node("NonZero", ["x"], ["j"]),
    ]
    weight = {"w": np.ones((64, 64), np.float32)}
    model = model_of(nodes, {"x": (FLOAT, [64, 64])}, {"i": (INT64, None), "j": (INT64, None)}, weight)
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    answer = tensorrt_probe.examine("tensorrt_rtx", path, False, {}, tmp_path / "t", lambda answer: None)
    assert [failure["node"] for failure in answer["failures"]] == ["NonZero -> i", "NonZero -> j"]


def test_onnxruntime_stops_at_one_and_is_asked_again(tmp_path):
    nodes = [node(f"Odd{number}", ["x"], [f"y{number}"], name=f"odd{number}") for number in range(3)]
    nodes.append(node("Mystery", ["x"], ["z"], name="mystery", domain="TRT"))
    outputs = {**{f"y{number}": (FLOAT, None) for number in range(3)}, "z": (FLOAT, None)}
    onnx.save(model_of(nodes, {"x": IMAGE}, outputs, domains=["TRT"]), tmp_path / "model.onnx")
    answer = onnxruntime_probe.examine(tmp_path / "model.onnx", lambda answer: None)
    assert answer["parses"] is False
    assert {failure["node"] for failure in answer["failures"]} == {"odd0", "odd1", "odd2", "mystery"}
    assert str(tmp_path) not in "".join(failure["words"] for failure in answer["failures"])


def test_onnxruntime_finds_weights_beside_the_file(tmp_path):
    nodes = [
        node("MatMul", ["x", "w"], ["m"], name="matmul"),
        node("Odd", ["x"], ["y"], name="odd"),
        node("Odder", ["m"], ["z"], name="odder"),
    ]
    outputs = {"y": (FLOAT, None), "z": (FLOAT, None)}
    model = model_of(nodes, {"x": (FLOAT, [64, 64])}, outputs, {"w": np.ones((64, 64), np.float32)})
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    answer = onnxruntime_probe.examine(path, lambda answer: None)
    assert {failure["node"] for failure in answer["failures"]} == {"odd", "odder"}


def test_openvino_names_all_at_once(tmp_path):
    nodes = [
        node("Det", ["x"], ["d"], name="det"),
        node("MaxUnpool", ["p", "i"], ["u"], name="unpool", kernel_shape=[2, 2]),
        node(
            "Resize",
            ["p", "roi", "", "s"],
            ["r"],
            name="crop",
            coordinate_transformation_mode="tf_crop_and_resize",
            mode="linear",
        ),
    ]
    inputs = {"x": (FLOAT, [3, 3]), "p": (FLOAT, [1, 3, 4, 4]), "i": (INT64, [1, 3, 4, 4])}
    constants = {"roi": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32), "s": np.array([1, 3, 4, 4])}
    model = model_of(nodes, inputs, {"d": (FLOAT, None), "u": (FLOAT, None), "r": (FLOAT, None)}, constants)
    onnx.save(model, tmp_path / "model.onnx")
    answer = openvino_probe.examine(tmp_path / "model.onnx", True, lambda answer: None)
    found = {failure["node"]: finding_of(failure, Runtime.OPENVINO) for failure in answer["failures"]}
    assert {name: finding.row for name, finding in found.items()} == {"det": 38, "unpool": 33, "crop": 5}
    assert found["crop"].words.startswith("tf_crop_and_resize")
    assert found["unpool"].way_out.startswith("take the form for tensorrt-rtx")


def test_what_is_cut_out_becomes_an_input_or_takes_what_follows_along():
    nodes = [
        node("Relu", ["x"], ["a"], name="a"),
        node("Unique", ["a"], ["b"], name="b"),  # its output's shape is known to be 1-D
        node("Neg", ["b"], ["c"], name="c"),
        node("Mystery", ["a"], ["d"], name="d"),  # and nothing is known of this one's
        node("Abs", ["d"], ["e"], name="e"),
    ]
    model = model_of(nodes, {"x": (FLOAT, [4])}, {"c": (FLOAT, None), "e": (FLOAT, None)})
    known = types(infer_shapes(model))
    left = without(model, {1, 3}, known)
    assert [label(one) for one in left.graph.node] == ["a", "c"]
    assert [value.name for value in left.graph.input] == ["x", "b"]
    assert [value.name for value in left.graph.output] == ["c", "a"]
    assert without(model, range(5), known) is None
    assert [one.name for one in model.graph.node] == list("abcde")


def test_a_node_alone_has_its_constants_and_its_inputs():
    nodes = [
        node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.array([2]))),
        node("TopK", ["x", "k"], ["v", "i"]),
    ]
    model = model_of(nodes, {"x": (FLOAT, [1, 5])}, {"v": (FLOAT, None), "i": (INT64, None)})
    part = alone(model, model.graph.node[1], types(infer_shapes(model)), constants(model))
    assert [value.name for value in part.graph.input] == ["x"]
    assert [tensor.name for tensor in part.graph.initializer] == ["k"]
    unknown = model_of([node("Mystery", ["x"], ["m"]), node("Abs", ["m"], ["y"])], {"x": IMAGE}, {"y": (FLOAT, None)})
    assert alone(unknown, unknown.graph.node[1], types(infer_shapes(unknown)), {}) is None
