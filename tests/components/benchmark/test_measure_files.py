"""`hasten benchmark` on plain files."""

import json
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.benchmark.files import measure_files
from components.core.contracts.job import Runtime
from components.core.contracts.variant import Status
from components.core.errors import UserError
from components.core.tasks.detection import read_detections

SIDE = 64
BOXES = [[4, 4, 24, 24], [30, 30, 60, 60]]


def quick(files, split_folder, out, **options):
    return measure_files(
        files,
        split_folder / "annotations.json",
        split_folder / "images",
        out,
        rounds=3,
        round_time=0.05,
        threads=1,
        progress=lambda *_: None,
        **options,
    )


def test_files_are_measured_over_the_first(split_folder, tmp_path, detector):
    detector(tmp_path / "slow.onnx", work=60)
    detector(tmp_path / "other/slow.onnx")
    detector(tmp_path / "nan.onnx", kind="nan")
    openvino.save_model(openvino.convert_model(tmp_path / "slow.onnx"), tmp_path / "ir.xml")
    files = [tmp_path / name for name in ("slow.onnx", "other/slow.onnx", "nan.onnx", "ir.xml")]
    rows = quick(files, split_folder, tmp_path / "out")
    assert [row.id for row in rows] == ["slow-onnxruntime", "other-slow-onnxruntime", "nan-onnxruntime", "ir-openvino"]
    slow, fast, nan, ir = rows
    assert slow.speedup.ratio == 1
    assert fast.speedup.ratio > 1
    assert nan.status == Status.FAILED
    assert ir.size_bytes > (tmp_path / "ir.xml").stat().st_size
    assert ir.accuracy.value == pytest.approx(1)
    raw = json.loads((tmp_path / "out/measurement.json").read_text())
    assert raw["results"].keys() == {row.id for row in rows}


def write_bright(path, batch):
    """An ONNX detector of `batch` images whose boxes and scores differ from image to image."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Reshape", ["mean", "as_boxes"], ["brightness"]),
        helper.make_node("Add", ["some_boxes", "brightness"], ["boxes"]),
        helper.make_node("Reshape", ["mean", "as_scores"], ["score"]),
        helper.make_node("Mul", ["some_scores", "score"], ["scores"]),
        helper.make_node("Identity", ["some_labels"], ["labels"]),
    ]
    values = {
        "as_boxes": np.array([batch, 1, 1]),
        "as_scores": np.array([batch, 1]),
        "some_boxes": np.array([BOXES], np.float32),
        "some_scores": np.array([[0.9, 0.8]], np.float32),
        "some_labels": np.ones((batch, 2), np.int64),
    }
    shapes = {"boxes": [batch, 2, 4], "scores": [batch, 2], "labels": [batch, 2]}
    kinds = {"labels": TensorProto.INT64}
    infos = [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "bright", [image], infos, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_batch_is_measured_as_one_call_and_finds_the_same(split_folder, tmp_path):
    rows = {}
    for batch in (1, 2):  # five images: the last batch of two is filled up
        (rows[batch],) = quick([write_bright(tmp_path / f"{batch}.onnx", batch)], split_folder, tmp_path / str(batch))
    one, two = (read_detections(Path(rows[batch].details["detections"])) for batch in (1, 2))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name].boxes, one[name].boxes, atol=2e-3)
        np.testing.assert_allclose(two[name].scores, one[name].scores, atol=2e-6)
    assert len({tuple(found.scores) for found in one.values()}) == 5, "the images must differ to be told apart"
    timing = rows[2].details["timing"]
    assert (timing["batch"], timing["p50_ms_an_image"]) == (2, pytest.approx(rows[2].latency_ms.p50 / 2, abs=1e-3))
    assert rows[2].reason.startswith("latencies are of a batch of 2: ")
    assert "batch" not in rows[1].details["timing"]
    assert rows[2].throughput == pytest.approx(2e3 / mean_call(tmp_path / "2"))


def mean_call(out):
    (raw,) = json.loads((out / "measurement.json").read_text())["results"].values()
    return np.mean([call for one in raw["rounds"].values() for call in one["end_to_end_ms"]])


def test_one_file_in_several_runtimes(split_folder, tmp_path, detector):
    path = detector(tmp_path / "m.onnx")
    rows = quick([path], split_folder, tmp_path / "out", runtimes=[Runtime.OPENVINO, Runtime.ONNXRUNTIME])
    assert [row.id for row in rows] == ["m-openvino", "m-onnxruntime"]


def test_what_cannot_be_measured_is_refused(split_folder, tmp_path, detector):
    good = detector(tmp_path / "m.onnx")
    bad = detector(tmp_path / "bad.onnx", kind="unknown")
    (tmp_path / "m.pth").write_bytes(b"")
    (tmp_path / "m.engine").write_bytes(b"")
    for files, options, words in (
        ([], {}, "no model file"),
        ([tmp_path / "m.pth"], {}, r"accepted: \.onnx"),
        ([tmp_path / "none.onnx"], {}, "does not exist"),
        ([good], {"runtimes": [Runtime.TENSORRT]}, "runs in onnxruntime or openvino"),
        ([tmp_path / "m.engine"], {}, "give the input size"),
        ([bad], {}, "ONNX Runtime refuses"),
    ):
        with pytest.raises(UserError, match=words):
            quick(files, split_folder, tmp_path / "out", **options)
    with pytest.raises(UserError, match="rounds 2"):
        measure_files([good], split_folder, split_folder, tmp_path, rounds=2)
