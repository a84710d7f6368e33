"""`hasten benchmark` on plain files."""

import json

import openvino
import pytest

from components.benchmark.files import measure_files
from components.core.contracts.job import Runtime
from components.core.contracts.variant import Status
from components.core.errors import UserError


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
