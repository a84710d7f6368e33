"""The step as a whole: rows for all that works, reasons for all that does not, on real processes and runtimes."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from components.benchmark.measure import Entry, Track, measure
from components.benchmark.process import WorkerError
from components.benchmark.rounds import Pace
from components.benchmark.run import run_benchmark
from components.benchmark.trial import best_setting, setting_name
from components.core.contracts.job import Job, Metric, Runtime
from components.core.contracts.leaderboard import Leaderboard, Ratio
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import StepError, UserError
from components.core.files import sha256_file
from components.core.tasks.detection import read_detections, read_split
from components.core.tasks.detection_adapter import DetectionAdapter

EAGER = '''
import os, torch

os.system("echo what a factory prints must not disturb the protocol")

class Eager(torch.nn.Module):
    """A detector as torchvision's: a list of images in, a list of dicts out; slow by a chain of matrix products."""

    def __init__(self):
        super().__init__()
        self.square = torch.nn.Parameter(torch.eye(192))
        self.register_buffer("boxes", torch.zeros(2, 4))

    def forward(self, images):
        square = self.square + images[0].mean()
        for _ in range(120):
            square = square @ self.square
        scores = torch.tensor([0.9, 0.8]) + 0 * square.mean()
        return [{"boxes": self.boxes, "scores": scores, "labels": torch.tensor([1, 1])}]
'''


def job(**changes) -> Job:
    split = {"annotations": "a.json", "images": "images"}
    return Job.model_validate(
        {
            "name": "tiny",
            "model": {"factory": "tiny_eager:Eager", "weights": "/anywhere/w.safetensors"},
            "data": {"train": split, "test": split},
            "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 64, 64], "threads": 1},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
            "budget": {"rounds": 3, "round_time": "0.05 s"},
        }
        | changes
    )


@pytest.fixture(scope="module")
def bundle(split_folder, tmp_path_factory) -> Path:
    import torch
    from safetensors.torch import save_file

    folder = split_folder.parent.parent
    (folder / "model").mkdir()
    weights = {"square": torch.eye(192), "boxes": torch.tensor([[4.0, 4, 24, 24], [30, 30, 60, 60]])}
    save_file(weights, folder / "model" / "w.safetensors")
    code = tmp_path_factory.mktemp("code")
    (code / "tiny_eager.py").write_text(EAGER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(code))
        yield folder


def write_manifest(folder: Path, *variants: Variant) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Manifest(task="detection", input_shape=(1, 3, 64, 64), variants=list(variants)).write(folder)
    return folder


def variant(name: str, runtime=Runtime.ONNXRUNTIME, **fields) -> Variant:
    return Variant(id=name, runtime=runtime, techniques=["int8"], **fields)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, detector) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    detector(folder / "stock.onnx", work=20)
    return write_manifest(
        folder,
        Variant(id="eager", runtime=Runtime.TORCH, techniques=[], details={"baseline": True}),
        Variant(id="fp32-onnxruntime", runtime="onnxruntime", techniques=[], file="stock.onnx", reference=True),
        Variant(id="fp32-openvino", runtime="openvino", techniques=[], file="stock.onnx", reference=True),
    )


@pytest.fixture(scope="module")
def started(bundle, exported, tmp_path_factory) -> tuple[Leaderboard, Path]:
    """The board after the rung `baseline`, and its folder."""
    out = tmp_path_factory.mktemp("baseline")
    return run_benchmark(job(), bundle, exported, None, "baseline", None, out), out


def test_the_baseline_rung_measures_the_untouched_model(started, exported, bundle):
    board, out = started
    eager, *yardsticks = board.candidates
    assert board.baseline == eager.id == "eager"
    assert [row.id for row in yardsticks] == ["fp32-onnxruntime", "fp32-openvino"]
    assert eager.speedup.ratio == 1
    assert eager.speedup.ci_low <= 1 <= eager.speedup.ci_high
    assert eager.accuracy.value == pytest.approx(1)
    assert eager.threads == 1
    assert eager.details["timing"]["setting"] == "1 thread"
    assert eager.size_bytes == (bundle / "model/w.safetensors").stat().st_size
    assert board.environment["cores"]
    for row in board.candidates:
        assert row.status == Status.OK
        assert row.rung == "baseline"
        assert row.model_latency_ms.p50 < row.latency_ms.p50 <= row.latency_ms.p90 <= row.latency_ms.p99
        assert row.accuracy.drop == pytest.approx(0)
        assert row.other_accuracy.keys() == {Metric.MAP}
        assert 3 <= row.rounds <= 6
        assert row.peak_rss_bytes > 2**20
        assert row.versions
        assert len(read_detections(Path(row.details["detections"]))) == 5
    assert yardsticks[0].reference
    assert yardsticks[0].sha256 == sha256_file(exported / "stock.onnx")
    # A sixth of the products; only a gross error of the measurement could hide that.
    assert yardsticks[0].speedup.ci_high > 1.2
    raw = json.loads((out / "measurement.json").read_text())
    calls = [call for one in raw["results"]["eager"]["rounds"].values() for call in one["end_to_end_ms"]]
    assert len(calls) == eager.details["timing"]["calls"]
    assert sorted(calls)[0] <= eager.latency_ms.p50 <= sorted(calls)[-1]
    assert Leaderboard.model_validate_json(board.model_dump_json()) == board


def with_speedup(board: Leaderboard, name: str, ratio: float) -> Leaderboard:
    """The board with another speed-up in one row, which makes it the yardstick."""
    better = Ratio(ratio=ratio, ci_low=ratio, ci_high=ratio)
    rows = [row.model_copy(update={"speedup": better}) if row.id == name else row for row in board.candidates]
    return board.model_copy(update={"candidates": rows})


def test_a_rung_has_a_row_for_every_variant(started, bundle, exported, tmp_path, detector, capfd):
    board = with_speedup(started[0], "fp32-openvino", 100.0)
    models = tmp_path / "models"
    detector(models / "fast.onnx")
    detector(models / "slow.onnx", work=400)
    detector(models / "half.onnx", scores=(0.9, -1))
    detector(models / "nan.onnx", kind="nan")
    detector(models / "unknown.onnx", kind="unknown")
    (models / "e").mkdir()
    (models / "e/model.engine").write_bytes(b"an engine")
    card = {"engine": {"layers": 3}}
    write_manifest(
        models,
        variant("fp32-openvino"),
        variant("fast", file="fast.onnx", options={"graph_optimization_level": "all"}),
        variant("slow", file="slow.onnx", reason="worth knowing"),
        variant("half", Runtime.OPENVINO, file="half.onnx"),
        variant("nan", file="nan.onnx"),
        variant("unknown", file="unknown.onnx"),
        variant("gone", file="gone.onnx"),
        variant("earlier", status=Status.FAILED, reason="NNCF said no"),
        variant("engine", Runtime.TENSORRT_RTX, file="e/model.engine", details=card),
    )
    out = tmp_path / "out"
    extended = run_benchmark(
        job(), bundle, exported, models, "int8", board, out, models_uri="s3://models", out_uri="s3://out"
    )
    assert extended.candidates[:3] == board.candidates
    rows = {row.id: row for row in extended.candidates[3:]}
    assert list(rows) == ["fast", "slow", "half", "nan", "unknown", "gone", "earlier", "engine"]
    assert {row.rung for row in rows.values()} == {"int8"}

    fast, slow, half = rows["fast"], rows["slow"], rows["half"]
    assert fast.status == slow.status == half.status == Status.OK
    assert fast.speedup.ci_low > slow.speedup.ci_high
    assert slow.speedup.ratio < 1
    assert slow.details["over_fp32"]["reference"] == "fp32-openvino"
    assert slow.reason.startswith("slower than fp32-openvino, the untouched model (")
    assert slow.reason.endswith("; worth knowing")
    assert slow.details["over_fp32"]["ci_high"] < 1
    assert fast.uri == "s3://models"
    assert fast.file == "fast.onnx"
    assert fast.options == {"graph_optimization_level": "all"}
    assert fast.details["detections"] == "s3://out/detections/fast.json"
    assert half.accuracy.value == pytest.approx(51 / 101, abs=1e-3)
    assert half.accuracy.drop == pytest.approx(1 - half.accuracy.value)

    assert rows["nan"].status == Status.FAILED
    assert "NaN scores" in rows["nan"].reason
    assert "ONNX Runtime refuses unknown.onnx" in rows["unknown"].reason
    assert "gone.onnx is missing" in rows["gone"].reason
    assert rows["earlier"].reason == "NNCF said no"
    for name in ("nan", "unknown", "gone", "earlier", "engine"):
        assert rows[name].latency_ms is rows[name].accuracy is rows[name].speedup is None
    engine = rows["engine"]
    assert engine.status == Status.SKIPPED
    assert engine.size_bytes == len(b"an engine")
    assert engine.sha256 == sha256_file(models / "e/model.engine")
    assert engine.details == card
    assert not (out / "detections/eager.json").exists()
    captured = capfd.readouterr()
    assert captured.out == ""


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU here")
def test_an_engine_without_a_gpu_is_said_to_be_built_and_not_timed(started, bundle, exported, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "m.engine").write_bytes(b"x")
    write_manifest(models, variant("a", Runtime.TENSORRT_RTX, file="m.engine"), variant("b", Runtime.TENSORRT))
    extended = run_benchmark(job(), bundle, exported, models, "int8", started[0], tmp_path / "out")
    assert extended.row("a").reason == "engine built, not timed: no GPU"
    assert extended.row("b").reason == "not timed: no GPU"


def test_mistakes_of_the_callers_are_named(started, bundle, exported, tmp_path):
    board, _ = started
    with pytest.raises(StepError, match="needs a board"):
        run_benchmark(job(), bundle, exported, exported, "int8", None, tmp_path / "out")
    other = board.model_copy(update={"baseline": "another"})
    with pytest.raises(StepError, match="another"):
        run_benchmark(job(), bundle, exported, exported, "int8", other, tmp_path / "out")
    empty = write_manifest(tmp_path / "empty")
    with pytest.raises(StepError, match="no baseline"):
        run_benchmark(job(), bundle, empty, None, "baseline", None, tmp_path / "out")


def as_given(folder: Path, bundle: Path, path: Path) -> tuple[Job, Path, Path]:
    """A job whose model is an ONNX file, its bundle and what `export` makes of it."""
    (folder / "bundle").mkdir()
    (folder / "bundle/data").symlink_to(bundle / "data")
    given = Variant(id="as-given", runtime="onnxruntime", techniques=[], file=path.name, details={"baseline": True})
    return job(model={"onnx": "m.onnx"}), folder / "bundle", write_manifest(path.parent, given)


def test_a_users_onnx_file_is_its_own_baseline(bundle, tmp_path, detector):
    task, own_bundle, exported = as_given(tmp_path, bundle, detector(tmp_path / "e/stock.onnx"))
    board = run_benchmark(task, own_bundle, exported, None, "baseline", None, tmp_path / "out")
    assert board.baseline == "as-given"
    assert "p50_ms_by_setting" not in board.row("as-given").details["timing"]


def test_the_component_hands_the_board_on_as_json(bundle, tmp_path, detector):
    from types import SimpleNamespace

    from components.benchmark.component import benchmark

    task, own_bundle, exported = as_given(tmp_path, bundle, detector(tmp_path / "e/stock.onnx"))
    returned = benchmark.python_func(
        job=task.model_dump_json(),
        bundle_uri=str(own_bundle),
        exported_uri=f"file://{exported}",
        models_uri="",
        rung="baseline",
        board="",
        code_version="1",
        run_id="1",
        measured=SimpleNamespace(path=str(tmp_path / "out"), uri="s3://bucket/out"),
    )
    row = Leaderboard.model_validate_json(returned).row("as-given")
    assert row.uri == f"file://{exported}"
    assert row.details["detections"] == "s3://bucket/out/detections/as-given.json"
    assert (tmp_path / "out/detections/as-given.json").is_file()


def test_a_model_that_finds_nothing_is_refused(bundle, tmp_path, detector):
    path = detector(tmp_path / "e/stock.onnx", scores=(-1, -1))
    task, own_bundle, exported = as_given(tmp_path, bundle, path)
    with pytest.raises(UserError, match="scores 0 mAP50 on the test split"):
        run_benchmark(task, own_bundle, exported, None, "baseline", None, tmp_path / "out")


def test_a_baseline_that_fails_ends_the_step(bundle, tmp_path, detector):
    task, own_bundle, exported = as_given(tmp_path, bundle, detector(tmp_path / "e/stock.onnx", kind="nan"))
    with pytest.raises(StepError, match="baseline as-given could not be measured: the model returned NaN scores"):
        run_benchmark(task, own_bundle, exported, None, "baseline", None, tmp_path / "out")


def test_a_users_mistake_in_the_baseline_is_the_users(exported, split_folder, tmp_path):
    (tmp_path / "data").symlink_to(split_folder.parent)
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"weights w\.safetensors do not exist"):
        run_benchmark(job(), tmp_path, exported, None, "baseline", None, tmp_path / "out")


def track(split_folder: Path, out: Path, rounds: int = 3) -> Track:
    split = read_split(split_folder / "annotations.json", split_folder / "images")
    pace = Pace(rounds, 0.05, seed=1, silence=4)
    return Track(DetectionAdapter(64, 64), split, (1, 3, 64, 64), out, pace, warmup_seconds=0.3)


def test_the_fastest_thread_setting_is_kept(split_folder, tmp_path, detector):
    detector(tmp_path / "base.onnx", work=20)
    entry = Entry(variant("base", file="base.onnx"), tmp_path, threads=2)
    chosen, medians = best_setting(entry, track(split_folder, tmp_path), lambda *_: None)
    assert chosen.variant == entry.variant
    assert list(medians) == ["2 threads", "2 threads, spinning", "1 thread"]
    assert medians[setting_name(chosen.threads, passive=chosen.passive)] <= min(medians.values()) / 0.97
    one = Entry(entry.variant, tmp_path, threads=1)
    assert best_setting(one, track(split_folder, tmp_path), lambda *_: None) == (one, {})


def test_without_a_working_setting_the_reason_comes_through(split_folder, tmp_path, detector):
    detector(tmp_path / "base.onnx", kind="nan")
    entry = Entry(variant("base", file="base.onnx"), tmp_path, threads=2)
    with pytest.raises(WorkerError, match="NaN scores"):
        best_setting(entry, track(split_folder, tmp_path), lambda *_: None)


def kill_worker(log_name: str) -> None:
    """Kills the child whose standard error is that log."""
    for child in psutil.Process().children():
        if Path(f"/proc/{child.pid}/fd/2").resolve().name == log_name:
            os.kill(child.pid, signal.SIGSEGV)
            return
    raise AssertionError(f"no worker writes {log_name}")


def test_candidates_that_hang_or_crash_leave_the_others_alone(split_folder, tmp_path, detector):
    detector(tmp_path / "good.onnx")
    detector(tmp_path / "hang.onnx", kind="hang")

    def progress(message, done, total):
        if message == "round 2 of 3":
            kill_worker("crash.log")

    entries = [
        Entry(variant(name, file=file), tmp_path, 1)
        for name, file in (("base", "good.onnx"), ("hang", "hang.onnx"), ("crash", "good.onnx"), ("good", "good.onnx"))
    ]
    seen = []
    started = time.monotonic()
    results = measure(entries[0], entries[1:], track(split_folder, tmp_path), progress, each=seen.append)
    assert time.monotonic() - started < 40
    assert "timed out: no answer within 4.3 s while warming up" in results["hang"].failure
    assert "crashed with SIGSEGV while being timed" in results["crash"].failure
    assert not results["good"].failure
    assert results["good"].scores[Metric.MAP50] == pytest.approx(1)
    assert [one.entry.variant.id for one in seen] == ["base", "hang", "crash", "good"]
    assert not psutil.Process().children()


def test_a_crash_of_the_baseline_ends_everything_and_leaves_no_process(split_folder, tmp_path, detector):
    detector(tmp_path / "good.onnx")

    def progress(message, done, total):
        if message == "round 2 of 3":
            kill_worker("base.log")

    entries = [Entry(variant(name, file="good.onnx"), tmp_path, 1) for name in ("base", "good")]
    with pytest.raises(WorkerError, match="SIGSEGV"):
        measure(entries[0], entries[1:], track(split_folder, tmp_path), progress)
    assert not psutil.Process().children()


def test_twice_the_work_takes_about_twice_as_long(split_folder, tmp_path, detector):
    detector(tmp_path / "once.onnx", work=80)
    detector(tmp_path / "twice.onnx", work=160)
    entries = [Entry(variant(name, file=f"{name}.onnx"), tmp_path, 1) for name in ("twice", "once")]
    found = measure(entries[0], entries[1:], track(split_folder, tmp_path, rounds=8), lambda *_: None)["once"].speedup
    assert 1.4 < found.ratio < 2.8
    assert found.ci_low <= found.ratio <= found.ci_high
