"""The command line: what it says at once, and how it refuses."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent.parent
SPLIT = {"annotations": "annotations.json", "images": "images"}
JOB: dict[str, Any] = {
    "name": "bad",
    "model": {"factory": "fixtures.detectors:tiny_faster_rcnn", "weights": "weights.pt"},
    "data": {"train": SPLIT, "test": SPLIT},
    "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 96, 96]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
}
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "thing"}],
}


def run(*arguments: str | Path, capsys: Any = None) -> tuple[int, list[str]]:
    """Runs the command line in this process; returns the exit code and the lines on stderr."""
    assert COMMANDS
    before = list(sys.argv)
    sys.argv = ["hasten", *(str(argument) for argument in arguments)]
    try:
        code = errors.run(app)
    finally:
        sys.argv = before
    return code, capsys.readouterr().err.strip().splitlines() if capsys else []


@pytest.fixture
def job_folder(tmp_path, monkeypatch) -> Path:
    """A sound job, with files that pass every check before a run."""
    from PIL import Image

    folder = tmp_path / "job"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (64, 64), (120, 90, 30)).save(folder / "images" / "1.png")
    (folder / "annotations.json").write_text(json.dumps(COCO))
    (folder / "weights.pt").write_bytes(b"PK\x03\x04 not looked into before export")
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    return folder


def with_job(folder: Path, path: str, value: object) -> None:
    fields = json.loads(json.dumps(JOB))
    *parents, last = path.split(".")
    inner = fields
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    (folder / "job.yaml").write_text(yaml.safe_dump(fields))


def with_coco(folder: Path, **changes: object) -> None:
    (folder / "annotations.json").write_text(json.dumps(COCO | changes))


BAD_JOBS = [
    ("model.weights", "gone.pt", "model.weights: "),
    ("data.test.annotations", "gone.json", "data.test.annotations: "),
    ("data.train.images", "gone", "data.train.images: "),
    ("goal.min_speedup", "2 ms", "job.yaml: goal.min_speedup: '2 ms' has the unit 'ms'"),
    ("goal.min_speed", "2x", "job.yaml: goal.min_speed: unknown key, did you mean min_speedup?"),
    ("goal.max_accuracy_drop", 7, "job.yaml: goal.max_accuracy_drop: given 7"),
    ("goal.max_accuracy_drop", -0.1, "job.yaml: goal.max_accuracy_drop: given -0.1"),  # stricter than the baseline
    ("goal.min_speedup", "1x", "job.yaml: goal: min_speedup 1x is met by the baseline itself"),
    ("target.runtimes", ["onnx"], "job.yaml: target.runtimes.0: given 'onnx', did you mean"),
    ("model.factory", "no_such_package.models:f", "model.factory: no_such_package.models:f: there is no Python module"),
    ("publish", {"to": "ftp://x"}, "job.yaml: publish.to: given 'ftp://x'"),
    ("budget", {"calibration_images": 0}, "job.yaml: budget.calibration_images: given 0"),
]


@pytest.mark.parametrize(("path", "value", "line"), BAD_JOBS, ids=[f"{path}={value}" for path, value, _ in BAD_JOBS])
def test_a_bad_job_is_refused_before_anything_is_written(job_folder, capsys, path, value, line):
    with_job(job_folder, path, value)
    code, lines = run("run", job_folder / "job.yaml", "--out", "out", capsys=capsys)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"hasten: {line}")
    assert not Path("out").exists()
    assert not Path("cache").exists()


BOX = COCO["annotations"][0]
BAD_DATA = [
    ({"annotations": [BOX | {"bbox": [50, 50, 40, 40]}]}, "outside"),
    ({"annotations": [BOX | {"category_id": 9}]}, "categor"),
    ({"images": [COCO["images"][0] | {"file_name": "2.png"}]}, "missing"),
    ({"images": [], "annotations": []}, "image"),
]


@pytest.mark.parametrize(("changes", "word"), BAD_DATA)
def test_bad_annotations_are_refused_before_anything_is_written(job_folder, capsys, changes, word):
    with_coco(job_folder, **changes)
    code, lines = run("run", job_folder / "job.yaml", "--out", "out", capsys=capsys)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("hasten: data.train.annotations: ")
    assert word in lines[0]
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "Missing argument 'JOB.yaml'"),
        (["rum"], "No such command 'rum'"),
        (["run", "none.yaml"], "none.yaml: there is no such file"),
        (["run", "job/job.yaml", "--mode", "fast"], "mode: given 'fast', accepted: stop-when-met, exhaustive"),
        (["run", "job/job.yaml", "--rungs", "int4"], "rungs: given 'int4', accepted: one or more of int8, fp16"),
        (["run", "job/job.yaml", "--rungs", ","], "rungs: given ','"),
        (["run", "job/job.yaml", "--out", "job/job.yaml"], "--out: job/job.yaml is a file"),
        (["run", "job/job.yaml", "--out", "job/job.yaml/x"], "--out: "),
        (["run", "job/job.yaml", "--nonsense"], "No such option"),
        (["fetch", "none.yaml", "--out", "o"], "none.yaml: there is no such file"),
        (["export", "--factory", "a:b", "--out", "o"], "export: --annotations, --images, --input-shape missing"),
        (
            ["export", "--annotations", "a", "--images", "b", "--input-shape", "1,3", "--out", "o"],
            "--input-shape: given",
        ),
        (
            ["export", "--annotations", "a", "--images", "b", "--input-shape", "1,3,64,64", "--out", "o"],
            "model: give exactly one of factory, program, onnx",
        ),
        (["surgery", "none.onnx", "--out", "o"], "none.onnx"),
        (["surgery", "job/annotations.json", "--out", "o"], "ONNX file annotations.json"),
        (["surgery", "x.onnx", "--runtime", "cuda", "--out", "o"], "--runtime: given 'cuda', accepted: onnxruntime"),
        (
            ["engine", "x.onnx", "--runtime", "openvino", "--out", "o"],
            "--runtime: given 'openvino', accepted: tensorrt",
        ),
        (
            ["benchmark", "none.onnx", "--annotations", "a", "--images", "b", "--out", "o"],
            "none.onnx: there is no such file",
        ),
        (
            ["benchmark", "job/job.yaml", "--annotations", "a", "--images", "b", "--out", "o"],
            "job/job.yaml: given .yaml, accepted: .onnx, .xml, .engine",
        ),
        (["schema", "jobs"], "schema: given 'jobs', accepted: job, leaderboard, manifest"),
        (["sample", "bccd", "--data", "nowhere", "--train"], "--data: nowhere/train.json does not exist"),
    ],
)
def test_a_bad_command_is_one_line(job_folder, capsys, arguments, line):
    code, lines = run(*arguments, capsys=capsys)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("hasten: ")
    assert line in lines[0]
    assert not Path("o").exists()


def test_a_store_that_cannot_be_reached_is_refused_before_any_work(job_folder, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "kept-to-itself")
    monkeypatch.setenv("HASTEN_ALLOWED_ENDPOINTS", "127.0.0.1:9")
    with_job(job_folder, "publish", {"to": "s3://models/trees", "endpoint": "http://127.0.0.1:9"})
    code, lines = run("run", job_folder / "job.yaml", "--out", "out", capsys=capsys)
    assert code == 2
    assert len(lines) == 1
    assert "http://127.0.0.1:9" in lines[0]
    assert "kept-to-itself" not in lines[0]
    assert not Path("out").exists()


def test_a_folder_that_is_full_is_not_overwritten(job_folder, capsys):
    Path("o").mkdir()
    Path("o/mine.txt").write_text("keep me")
    code, lines = run("fetch", job_folder / "job.yaml", "--out", "o", capsys=capsys)
    assert code == 2
    assert lines[-1].startswith("hasten: --out: o is there already")
    assert [path.name for path in Path("o").iterdir()] == ["mine.txt"]


def test_an_internal_error_keeps_its_traceback_in_a_file(job_folder, capsys, monkeypatch):
    def broken(_cache):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("pipelines.doctor.examine", broken)
    code, lines = run("doctor", capsys=capsys)
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith("hasten: internal error: ZeroDivisionError: division by zero (traceback: ")
    log = Path(lines[0].partition("(traceback: ")[2].rstrip(")"))
    assert "Traceback" in log.read_text()
    log.unlink()


def test_help_starts_quickly_and_needs_no_heavy_library():
    command = [sys.executable, "-c", "from pipelines.cli.main import main; main()", "--help"]
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: a busy machine is not the command's fault.
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert "Climb the ladder" in done.stdout
    assert min(times) < 0.5
    loaded = "import sys, pipelines.cli.main; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    modules = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for heavy in ("torch", "onnx", "numpy", "kfp", "pydantic", "boto3", "openvino"):
        assert f"'{heavy}'" not in modules


def test_every_command_teaches_with_an_example(capsys):
    for name in ("run", "fetch", "export", "surgery", "int8", "fp16", "engine", "benchmark", "compile", "schema"):
        run(name, "--help")
        shown = capsys.readouterr().out
        assert "Example" in shown, name
        assert f"hasten {name}" in shown, name


def test_version(capsys):
    assert run("--version")[0] == 0
    assert capsys.readouterr().out.startswith("hasten 0.")


def test_schemas(tmp_path, capsys):
    assert run("schema", "--out", tmp_path)[0] == 0
    names = ["job.json", "leaderboard.json", "manifest.json", "run-plan.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    job = json.loads((tmp_path / "job.json").read_text())
    assert "20 ms" in job["$defs"]["Goal"]["properties"]["max_p50"]["description"]
    capsys.readouterr()
    assert run("schema", "leaderboard")[0] == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Leaderboard"


def test_doctor_says_what_this_machine_can_do(capsys):
    assert run("doctor", "--json")[0] == 0
    report = json.loads(capsys.readouterr().out)
    runtimes = {row["runtime"]: row for row in report["runtimes"]}
    assert set(runtimes) == {"torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"}
    assert all(row["run"]["ok"] or row["run"]["why"] for row in report["runtimes"])
    assert all(step["works"]["ok"] or "pip install" in step["works"]["why"] for step in report["steps"])
    assert run("doctor")[0] == 0
    assert "Runtimes" in capsys.readouterr().out


def test_doctor_tells_how_to_install_what_is_missing(capsys, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    missing = ("openvino", "nncf", "torch")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else real(name, *rest))
    assert run("doctor")[0] == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "openvino, nncf not installed" in shown
    assert "hasten[export]" in shown
