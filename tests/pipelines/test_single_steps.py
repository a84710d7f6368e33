"""Each step as a command of its own, one after the other on the tiny detector's files."""

import json
from pathlib import Path

import pytest
from tiny_job import FACTORY, hasten, make_tiny_job

from components.core.contracts.leaderboard import Leaderboard

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    make_tiny_job(folder / "job")
    return folder


def test_from_weights_to_an_engine_and_a_measurement(place):
    job, work = place / "job", place / "work"
    train = ("--annotations", job / "train" / "annotations.json", "--images", job / "train" / "images")

    def ok(*arguments: str | Path) -> str:
        done = hasten(place / "cache", *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    card = json.loads(ok("fetch", job / "job.yaml", "--out", work / "bundle", "--json"))
    assert card["train"]["images"] == 3
    assert (work / "bundle" / "fetch_card.json").is_file()

    model = ("--factory", FACTORY, "--weights", job / "weights.pt", "--input-shape", "1,3,96,96")
    exported = ok("export", *model, *train, "--out", work / "exported")
    assert "fp32-onnxruntime" in exported
    canonical = work / "exported" / "sources" / "canonical.onnx"

    static = work / "static"
    ok("surgery", canonical, "--runtime", "onnxruntime,tensorrt-rtx", "--out", static)
    assert (static / "surgery_report.md").is_file()

    quantized = json.loads(
        ok("int8", static / "onnxruntime" / "model.onnx", "-r", "onnxruntime", *train, "--out", work / "int8", "--json")
    )
    assert {variant["status"] for variant in quantized["variants"]} == {"ok"}
    in_int8 = next(variant for variant in quantized["variants"] if "int8" in variant["techniques"])
    small = work / "int8" / in_int8["file"]
    assert small.stat().st_size < canonical.stat().st_size

    half = ok("fp16", static / "tensorrt-rtx" / "model.onnx", "--runtime", "tensorrt-rtx", "--out", work / "fp16")
    assert "fp16-tensorrt-rtx" in half

    measured = ok(
        "benchmark", canonical, small, *train, "--rounds", "3", "--threads", "1", "--out", work / "m", "--json"
    )
    board = Leaderboard.model_validate_json(measured)
    assert [row.id for row in board.candidates] == ["0-canonical-onnxruntime", "1-int8-onnxruntime"]
    assert board.baseline == "0-canonical-onnxruntime"
    assert all(row.latency_ms and row.latency_ms.p50 > 0 for row in board.candidates)
    assert all(Path(str(row.uri), str(row.file)).is_file() for row in board.candidates)
    assert json.loads((work / "m" / "leaderboard.json").read_text()) == json.loads(measured)


def test_an_engine_from_one_file(place):
    pytest.importorskip("tensorrt_rtx")
    from components.core.contracts.job import Runtime
    from components.core.tensorrt_tools.modules import missing_module

    if reason := missing_module(Runtime.TENSORRT_RTX):
        pytest.skip(reason)
    model = place / "work" / "static" / "tensorrt-rtx" / "model.onnx"
    if not model.exists():
        pytest.skip("the static model of the test before is not there")
    done = hasten(place / "cache", "engine", model, "--compute-capability", "8.6", "--out", place / "work" / "engine")
    assert done.returncode == 0, done.stderr
    engines = list((place / "work" / "engine").glob("*/model.engine"))
    assert len(engines) == 1
    assert engines[0].stat().st_size > 1000


def test_a_damaged_model_leaves_nothing(place):
    damaged = place / "damaged.onnx"
    damaged.write_bytes(b"\x08\x07\x12" + b"\xff" * 40)
    done = hasten(place / "cache", "surgery", damaged, "--out", place / "never")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "damaged.onnx" in done.stderr
    assert not (place / "never").exists()
