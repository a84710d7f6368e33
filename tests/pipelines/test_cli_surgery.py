"""`hasten surgery`: any ONNX model, what is refused before and after, and an exit code that says how it ended."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_cli import run

from components.core.onnx_wire import signature

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra tensorrt-rtx)")


def save(path, nodes, inputs, outputs, constants=None):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def text_model(place):
    """Token ids in, class scores out; one open dimension, no image anywhere."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], name="embed"),
        helper.make_node("ReduceMean", ["words"], ["mean"], name="pool", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["scores"], name="head"),
    ]
    constants = {"table": np.ones((10, 4), np.float32), "w": np.ones((4, 3), np.float32)}
    return save(place / "text.onnx", nodes, {"ids": (INT64, [1, "words"])}, {"scores": (FLOAT, None)}, constants)


@pytest.fixture
def boxes_model(place):
    it = helper.make_node("NonMaxSuppression", ["b", "s", "k", "t"], ["kept"], name="nms")
    inputs = {"b": (FLOAT, [1, 20, 4]), "s": (FLOAT, [1, 1, 20])}
    constants = {"k": np.array([5]), "t": np.array([0.5], np.float32)}
    return save(place / "boxes.onnx", [it], inputs, {"kept": (INT64, None)}, constants)


@pytest.fixture
def det_model(place):
    it = helper.make_node("Det", ["x"], ["y"], name="det")
    return save(place / "det.onnx", [it], {"x": (FLOAT, [5, 5])}, {"y": (FLOAT, None)})


def test_a_dry_run_that_finds_nothing_writes_nothing(text_model, place, capsys):
    assert run("surgery", text_model, "--dry-run")[0] == 0
    shown = capsys.readouterr().out
    assert "before: tensorrt_rtx" in shown
    assert "builds" in shown
    assert "open dimensions at ids [1, 64]" in shown
    assert [path.name for path in place.iterdir()] == ["text.onnx"]


def test_a_dry_run_says_what_is_refused_and_what_to_do(boxes_model, place, capsys):
    code, lines = run("surgery", boxes_model, "--dry-run", capsys=capsys)
    assert code == 1
    assert lines[-1] == (
        "hasten: tensorrt-rtx: parses, does not build (1 finding) at nms: NonMaxSuppression; "
        "surgery row 12 replaces it when its sizes and thresholds are constant"
    )
    assert [path.name for path in place.iterdir()] == ["boxes.onnx"]
    assert run("surgery", boxes_model, "--dry-run", "--no-build")[0] == 1  # known without asking the builder
    capsys.readouterr()
    assert run("surgery", boxes_model, "--dry-run", "--out", "said")[0] == 1
    assert sorted(path.name for path in Path("said").iterdir()) == ["surgery_report.json", "surgery_report.md"]
    assert "What is refused" in capsys.readouterr().out


def test_an_operator_that_nobody_knows_is_a_finding(place, capsys):
    it = helper.make_node("Mystery", ["x"], ["y"], name="it")
    path = save(place / "odd.onnx", [it], {"x": (FLOAT, [3])}, {"y": (FLOAT, None)})
    code, lines = run("surgery", path, "--dry-run", "-r", "tensorrt-rtx,onnxruntime", capsys=capsys)
    assert code == 1
    assert "tensorrt-rtx: does not parse (1 finding) at it: " in lines[-1]
    assert "onnxruntime: does not parse (1 finding) at it: " in lines[-1]


def test_weights_outside_of_the_models_folder_are_not_followed(place, capsys):
    it = helper.make_node("Add", ["x", "w"], ["y"], name="it")
    (place / "inner").mkdir()
    path = save(
        place / "inner" / "m.onnx", [it], {"x": (FLOAT, [3])}, {"y": (FLOAT, None)}, {"w": np.ones(3, np.float32)}
    )
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    onnx.save(model, path)
    for arguments in (("--dry-run",), ("--out", "o")):
        code, lines = run("surgery", path, *arguments, capsys=capsys)
        assert code == 2
        assert "secret" in lines[-1]


def test_what_surgery_repairs_is_accepted(boxes_model, capsys):
    assert run("surgery", boxes_model, "--out", "out")[0] == 0
    shown = capsys.readouterr().out
    assert "parses, does not build (1 finding)" in shown
    assert "max error" in shown
    assert "│ nms" in shown
    assert "What is left" not in shown
    report = json.loads(Path("out/surgery_report.json").read_text())["tensorrt-rtx"]
    assert (report["before"]["builds"], report["after"]["builds"]) == (False, True)
    assert report["before"]["findings"][0]["row"] == 12
    assert Path("out/tensorrt-rtx/model.onnx").is_file()
    page = Path("out/surgery_report.md").read_text()
    assert "- before: tensorrt\\_rtx" in page
    assert "### What tensorrt-rtx refused before" in page
    assert "What is left" not in page


def test_what_is_left_is_explained_and_the_rest_is_there(det_model, capsys):
    code, lines = run("surgery", det_model, "-r", "tensorrt-rtx,onnxruntime,tensorrt", "--out", "out", capsys=capsys)
    assert code == 1
    assert "tensorrt-rtx: does not parse (1 finding) at det: " in lines[-1]
    assert "tensorrt: " in lines[-1]
    assert "onnxruntime" not in lines[-1]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "onnxruntime",
        "surgery_report.json",
        "surgery_report.md",
        "tensorrt",
        "tensorrt-rtx",
    ]
    assert "### What is left and why" in Path("out/surgery_report.md").read_text()


def test_what_open_inputs_hide_is_said_with_the_option_that_shows_it(place, capsys):
    nodes = [
        helper.make_node("NonZero", ["x"], ["first"], name="one"),
        helper.make_node("NonZero", ["z"], ["second"], name="two"),
    ]
    kinds = {"x": (FLOAT, ["n"]), "z": (FLOAT, ["n"])}
    model = save(place / "open.onnx", nodes, kinds, {"first": (INT64, None), "second": (INT64, None)})
    code, lines = run("surgery", model, "--out", "out", capsys=capsys)
    assert code == 1
    assert "the shape of its mask is not fixed (and 1 more)" in lines[-1]
    assert "pin the open inputs (--input-shape, target.input_shape): x [n], z [n]" in lines[-1]
    assert run("surgery", model, "--out", "fixed", "--input-shape", "4")[0] == 0
    capsys.readouterr()


def test_the_tables_fit_into_100_columns_and_say_each_reason_once(place, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")
    nodes = [
        helper.make_node("NonZero", ["x"], [f"y{n}"], name=f"/model/head/a_long_name/NonZero_{n}") for n in range(6)
    ]
    outputs = {f"y{n}": (INT64, None) for n in range(6)}
    model = save(place / "open.onnx", nodes, {"x": (FLOAT, ["n"])}, outputs)
    assert run("surgery", model, "--out", "out")[0] == 1
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    tables = [line for line in shown.splitlines() if line[:1] in "┏┃┡│└"]
    assert tables
    assert max(len(line) for line in tables) <= 100
    words = " ".join(shown.replace("│", " ").split())
    assert words.count("not fixed") == 1
    assert "and 3 more" in words
    assert "Nothing could be done" in words


def test_a_folder_that_cannot_be_made_is_a_mistake(text_model, place, capsys):
    code, lines = run("surgery", text_model, "--out", "/proc/surgered", capsys=capsys)
    assert code == 2
    assert lines[-1].startswith("hasten: --out: /proc/surgered: ")
    assert "give a folder that can be written" in lines[-1]


def test_a_time_that_is_too_short_is_said_with_its_option(text_model, capsys, monkeypatch):
    from components.core.apart import DiedError, End
    from components.surgery import run as surgery_run

    def slow(*_):
        raise DiedError("it took longer than 1 s and was stopped", End.TIME)

    monkeypatch.setattr(surgery_run, "run_apart", slow)
    code, lines = run("surgery", text_model, "--out", "out", capsys=capsys)
    assert code == 1
    assert "surgery failed: it took longer than 1 s and was stopped; try a longer --time-limit" in lines[-1]


def test_json_is_the_report(boxes_model, capsys):
    assert run("surgery", boxes_model, "--out", "out", "--json")[0] == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads(Path("out/surgery_report.json").read_text())


def test_rows_can_be_chosen_and_left_out(boxes_model, capsys):
    for option, rows in (("--skip", "12"), ("--only", "0,41")):
        assert run("surgery", boxes_model, "--out", f"out{option}", option, rows)[0] == 1
    assert run("surgery", boxes_model, "--out", "out", "--only", "12")[0] == 0
    capsys.readouterr()
    report = json.loads(Path("out/surgery_report.json").read_text())["tensorrt-rtx"]
    assert {record["row"] for record in report["records"]} == {12}


def test_real_inputs_take_part_in_the_proof(boxes_model, capsys):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((1, 20, 2, 2)), axis=2).reshape(1, 20, 4).astype(np.float32)
    np.savez("frame.npz", b=corners, s=rng.random((1, 1, 20), np.float32), unused=np.zeros(3))
    assert run("surgery", boxes_model, "--out", "out", "--input", "frame.npz")[0] == 0
    capsys.readouterr()


def test_a_text_model_with_an_open_dimension_goes_through(text_model, capsys):
    arguments = ("--input-shape", "ids=1,12", "-r", "tensorrt-rtx,openvino,onnxruntime")
    assert run("surgery", text_model, "--out", "out", *arguments)[0] == 0
    assert "open dimensions at ids [1, 12]" in capsys.readouterr().out  # before; after it they are pinned
    assert signature(Path("out/tensorrt-rtx/model.onnx"))[0][0].shape == (1, 12)
    assert signature(Path("out/openvino/model.onnx"))[0][0].shape == (1, -1)


def test_a_limit_that_is_too_low_is_said(boxes_model, capsys):
    code, lines = run("surgery", boxes_model, "--dry-run", "--memory-limit", "64", capsys=capsys)
    assert code == 1
    assert "more than 64 MiB" in lines[-1] or "ran out of its memory" in lines[-1]
    assert "--memory-limit" in lines[-1]


BAD = [
    (["text.onnx"], "--out: missing; give a folder for the model, or --dry-run to diagnose only"),
    (["gone.onnx", "--dry-run"], "ONNX file gone.onnx: there is no such file"),
    (["text.onnx", "--dry-run", "--only", "99"], "--only: given '99', accepted: 0, "),
    (["text.onnx", "--dry-run", "--skip", "one"], "--skip: given 'one', accepted: 0, "),
    (["text.onnx", "--dry-run", "--only", "1,"], "--only: given '', accepted: 0, "),
    (["text.onnx", "--dry-run", "--only", "1,12", "--skip", "12,14"], "--only and --skip both name row 12"),
    (["text.onnx", "--dry-run", "-r", "openvino", "--only", "12"], "--only: row 12 is not done for openvino"),
    (["text.onnx", "--dry-run", "-r", "torch"], "--runtime: given 'torch', accepted: onnxruntime"),
    (["text.onnx", "--dry-run", "--input-shape", "1,x"], "--input-shape: given '1,x', accepted: "),
    (["text.onnx", "--dry-run", "--input-shape", "2,9"], "--input-shape: 2,9 fits no input; the model has: ids [1, ?]"),
    (["text.onnx", "--dry-run", "--input-shape", "mask=1,9"], "--input-shape: mask=1,9 fits no input"),
    (["text.onnx", "--out", "o", "--input", "gone.npz"], "--input: gone.npz: there is no such file"),
    (["text.onnx", "--out", "o", "--input", "text.onnx"], "--input: text.onnx: it is no .npz file"),
    (["text.onnx", "--out", "o", "--input", "other.npz"], "--input: other.npz: given mask, needed: ids (ids missing)"),
    (["text.onnx", "--out", "o", "--input", "float.npz"], "ids is float32 [1, 5], accepted: int64 [1, ?]"),
    (["text.onnx", "--out", "o", "--input", "flat.npz"], "ids is int64 [5], accepted: int64 [1, ?]"),
    (["half.onnx", "--dry-run"], "ONNX file half.onnx: it is truncated or no ONNX model"),
    (["half.onnx", "--out", "o"], "ONNX file half.onnx: it is truncated or no ONNX model"),
    (["text.onnx", "--out", "full"], "--out: full is there already; give a new or an empty folder"),
    (["text.onnx", "--dry-run", "--nms-rounds", "0"], "--nms-rounds"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_a_mistake_is_one_line(text_model, place, capsys, arguments, line):
    np.savez("other.npz", mask=np.zeros(3))
    np.savez("float.npz", ids=np.zeros((1, 5), np.float32))
    np.savez("flat.npz", ids=np.zeros(5, np.int64))
    (place / "half.onnx").write_bytes(text_model.read_bytes()[:100])
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("keep me")
    code, lines = run("surgery", *arguments, capsys=capsys)
    assert code == 2
    said = [one for one in lines if one.startswith("hasten: ")]
    assert len(said) == 1
    assert line in said[0]
    assert not (place / "o").exists()
    assert [path.name for path in (place / "full").iterdir()] == ["mine.txt"]
