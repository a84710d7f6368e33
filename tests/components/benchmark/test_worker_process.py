"""The protocol between benchmark and worker, with real runtimes in real processes."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from components.benchmark.process import WorkerError, WorkerProcess, worker_environment
from components.core.contracts.job import Runtime
from components.core.contracts.variant import Variant
from components.core.tasks.detection import read_detections

SILENCE = 60


def load(worker: WorkerProcess, path: Path, split: Path, runtime=Runtime.ONNXRUNTIME, side=64, **options) -> dict:
    variant = Variant(id="x", runtime=runtime, techniques=[], file=path.name, options=options)
    return worker.ask(
        "load",
        "loading",
        SILENCE,
        variant=variant.model_dump(mode="json"),
        folder=str(path.parent),
        job=None,
        bundle=None,
        threads=1,
        batch=1,
        task={"task": "detection", "input_shape": [1, 3, side, side], "preprocess": {}},
        annotations=str(split / "annotations.json"),
        media=str(split / "images"),
    )


@pytest.fixture
def worker(tmp_path):
    with WorkerProcess(tmp_path / "x.log", 1, passive=True) as process:
        yield process


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_a_whole_session(worker, tmp_path, split_folder, detector, runtime):
    loaded = load(worker, detector(tmp_path / "d.onnx", work=20), split_folder, runtime)
    assert loaded["timed_samples"] == 5
    warm = worker.ask("warmup", "warming up", SILENCE, seconds=2)
    assert warm["calls"] >= 6
    times = worker.ask("round", "timing", SILENCE, seconds=0.2)
    assert len(times["end_to_end_ms"]) == len(times["model_ms"]) >= 3
    for end_to_end, model in zip(times["end_to_end_ms"], times["model_ms"], strict=True):
        assert 0 < model < end_to_end < 1000
    path = tmp_path / "detections.json"
    answer = worker.ask("accuracy", "detecting", SILENCE, path=str(path))
    assert answer["samples"] == 5
    found = read_detections(path)
    assert sorted(found) == [f"{i}.png" for i in range(5)]
    assert found["0.png"].boxes.tolist() == [[4, 4, 24, 24], [30, 30, 60, 60]]
    assert found["0.png"].labels.tolist() == [1, 1]


def test_a_round_lasts_as_long_as_asked_and_at_least_three_calls(worker, tmp_path, split_folder, detector):
    load(worker, detector(tmp_path / "d.onnx", work=20), split_folder)
    assert len(worker.ask("round", "timing", SILENCE, seconds=0)["model_ms"]) == 3
    answer = worker.ask("round", "timing", SILENCE, seconds=0.5)
    assert 400 < sum(answer["end_to_end_ms"]) < 2000


def test_padding_is_left_out(worker, tmp_path, split_folder, detector):
    load(worker, detector(tmp_path / "d.onnx", scores=(0.9, -1)), split_folder)
    worker.ask("accuracy", "detecting", SILENCE, path=str(tmp_path / "d.json"))
    assert read_detections(tmp_path / "d.json")["3.png"].scores.tolist() == pytest.approx([0.9])


def test_boxes_come_back_in_pixels_of_the_image(worker, tmp_path, split_folder, detector):
    load(worker, detector(tmp_path / "d.onnx", side=128), split_folder, side=128)
    worker.ask("accuracy", "detecting", SILENCE, path=str(tmp_path / "d.json"))
    assert read_detections(tmp_path / "d.json")["3.png"].boxes.tolist() == [[2, 2, 12, 12], [15, 15, 30, 30]]


def test_nan_is_an_error_and_the_worker_lives_on(worker, tmp_path, split_folder, detector):
    load(worker, detector(tmp_path / "d.onnx", kind="nan"), split_folder)
    with pytest.raises(WorkerError, match="NaN scores"):
        worker.ask("warmup", "warming up", SILENCE, seconds=1)
    load(worker, detector(tmp_path / "good.onnx"), split_folder)
    assert worker.ask("warmup", "warming up", SILENCE, seconds=1)["calls"]


def test_files_that_do_not_load_are_errors_of_one_line(worker, tmp_path, split_folder, detector):
    unknown = detector(tmp_path / "unknown.onnx", kind="unknown")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(detector(tmp_path / "d.onnx").read_bytes()[:200])
    for path in (unknown, cut):
        for runtime, name in ((Runtime.ONNXRUNTIME, "ONNX Runtime"), (Runtime.OPENVINO, "OpenVINO")):
            with pytest.raises(WorkerError, match=f"{name} refuses {path.name}") as caught:
                load(worker, path, split_folder, runtime)
            assert "\n" not in str(caught.value)
    with pytest.raises(WorkerError, match="not in"):
        load(worker, tmp_path / "missing.onnx", split_folder)


def test_options_reach_the_runtime_and_unknown_ones_are_refused(worker, tmp_path, split_folder, detector):
    path = detector(tmp_path / "d.onnx")
    load(worker, path, split_folder, **{"session.intra_op.allow_spinning": 0, "graph_optimization_level": "basic"})
    with pytest.raises(WorkerError, match="no option precision"):
        load(worker, path, split_folder, precision="f16")
    load(worker, path, split_folder, Runtime.OPENVINO, INFERENCE_PRECISION_HINT="bf16")
    with pytest.raises(WorkerError, match="OpenVINO refuses"):
        load(worker, path, split_folder, Runtime.OPENVINO, NO_SUCH_PROPERTY="1")


def test_silence_ends_in_a_timeout(tmp_path, split_folder, detector):
    with WorkerProcess(tmp_path / "x.log", 1, passive=True) as worker:
        load(worker, detector(tmp_path / "d.onnx", kind="hang"), split_folder)
        started = time.monotonic()
        with pytest.raises(WorkerError, match="timed out: no answer within 1 s while warming up"):
            worker.ask("warmup", "warming up", 1, seconds=1)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(("how", "words"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, r"SIGKILL \(out of memory")])
def test_a_crash_is_named(tmp_path, split_folder, detector, how, words):
    with WorkerProcess(tmp_path / "x.log", 1, passive=True) as worker:
        load(worker, detector(tmp_path / "d.onnx", kind="hang"), split_folder)
        worker.send("warmup", "warming up", seconds=1)
        os.kill(worker.pid, how)
        with pytest.raises(WorkerError, match=f"crashed with {words}.* while warming up"):
            worker.receive("warming up", SILENCE)
        with pytest.raises(WorkerError, match=r"crashed with .* while timing"):
            worker.ask("round", "timing", SILENCE, seconds=1)


def test_a_worker_ends_with_its_parent(tmp_path):
    worker = WorkerProcess(tmp_path / "x.log", 1, passive=True)
    process = psutil.Process(worker.pid)
    worker._process.stdin.close()
    assert process.wait(20) == 0
    worker.close()


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO])
def test_an_idle_worker_leaves_the_processor_to_others(worker, tmp_path, split_folder, detector, runtime):
    load(worker, detector(tmp_path / "d.onnx", work=50), split_folder, runtime)
    worker.ask("round", "timing", SILENCE, seconds=0.3)
    process = psutil.Process(worker.pid)
    before = process.cpu_times()
    time.sleep(1.0)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.1


def test_peak_memory_is_the_workers_own(worker, tmp_path, split_folder, detector):
    # A parent that was large before it started the worker: ru_maxrss would carry its peak over.
    ballast = b"x" * (400 * 2**20)
    with WorkerProcess(tmp_path / "y.log", 1, passive=True) as other:
        del ballast
        load(other, detector(tmp_path / "d.onnx"), split_folder)
        peak = other.ask("accuracy", "detecting", SILENCE, path=str(tmp_path / "d.json"))["peak_rss_bytes"]
    assert 20 * 2**20 < peak < 300 * 2**20


def test_environment_of_a_worker(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("HASTEN_EVENTS", "/tmp/events")
    spinning = worker_environment(2, passive=False)
    assert spinning["OMP_NUM_THREADS"] == "2"
    assert "OMP_WAIT_POLICY" not in spinning
    assert "HASTEN_EVENTS" not in spinning
    assert worker_environment(2, passive=True)["OMP_WAIT_POLICY"] == "PASSIVE"
