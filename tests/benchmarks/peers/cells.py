"""What one tool made of one model, kept on disk: a run that was cut off goes on where it stopped."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environments import python_of
from zoo import DETECTORS, BenchModel

PEERS = ("nncf", "onnxruntime", "neural-compressor", "olive")
CONTROL = "nncf-accuracy-control"
HASTEN = "hasten"
_HERE = Path(__file__).parent
_ERROR_LENGTH = 300


def cell(model: BenchModel, tool: str, cells: Path, environments: Path, time_limit: float) -> dict[str, Any]:
    """The tool's INT8 form of the model, made where it is not there yet.

    Returns:
        ``file``, ``options``, ``runtime``, ``seconds``, ``processor_seconds``, ``peak_bytes``; or ``error``.
    """
    folder = cells / model.name / tool
    record = folder / "cell.json"
    if record.exists():
        kept: dict[str, Any] = json.loads(record.read_text())
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = _hasten(model, folder) if tool == HASTEN else _peer(model, tool, folder, environments, time_limit)
    except subprocess.TimeoutExpired:
        found = {"error": f"stopped after {time_limit:.0f} s"}
    except Exception as error:  # a peer that fails is a row with its words
        found = {"error": " ".join(f"{error}".split())[:_ERROR_LENGTH] or type(error).__name__}
    record.write_text(json.dumps(found, indent=2))
    return found


def size_of(file: Path) -> int:
    """Bytes of a model with the weights beside it."""
    return sum(one.stat().st_size for one in file.parent.glob(f"{file.stem}*") if one.suffix != ".json")


def _peer(model: BenchModel, tool: str, folder: Path, environments: Path, time_limit: float) -> dict[str, Any]:
    python = python_of(tool, environments)
    script = str((_HERE / "quantize_with.py").resolve())
    command = [str(python.absolute()), script, tool, str(model.onnx.resolve()), str(model.calibration.resolve())]
    done = _run([*command, str((folder / "made").resolve())], folder, time_limit, {"OLIVE_DISABLE_TELEMETRY": "1"})
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(_last_words(done))
    found: dict[str, Any] = json.loads(lines[-1])
    return found | {"runtime": "openvino" if found["file"].endswith(".xml") else "onnxruntime", "options": {}}


def _hasten(model: BenchModel, folder: Path) -> dict[str, Any]:
    """The command as a user gives it; a detector goes through surgery first."""
    given, calls = model.onnx, []
    hasten = [sys.executable, "-m", "pipelines.cli.main"]
    if model.name in DETECTORS:
        calls.append([*hasten, "surgery", str(given), "--runtime", "openvino", "--out", str(folder / "surgery")])
        given = folder / "surgery" / "openvino" / "model.onnx"
    calls.append(
        [
            *(*hasten, "int8", str(given), "--calibration", str(model.calibration)),
            *(
                "--runtime",
                "openvino,onnxruntime",
                "--threads",
                "1",
                "--rounds",
                "3",
                "--json",
                "--out",
                str(folder / "made"),
            ),
        ]
    )
    started, used = time.perf_counter(), os.times()
    peak = 0
    for call in calls:
        done = _run(["/usr/bin/env", *call], folder, 3600.0, {})
        if done.returncode not in (0, 3):
            raise RuntimeError(_last_words(done))
    now = os.times()
    result = json.loads(done.stdout)
    peak = result["peak_rss_bytes"]
    pick = result["pick"]
    return {
        "file": pick["file"],
        "options": pick["options"],
        "runtime": pick["runtime"],
        "form": pick["id"],
        "seconds": time.perf_counter() - started,
        "processor_seconds": now.children_user + now.children_system - used.children_user - used.children_system,
        "peak_bytes": peak,
        "result": result,
    }


def _run(
    command: Sequence[str], folder: Path, time_limit: float, more: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | more
    where = None
    if more:
        environment.pop("PYTHONPATH")  # a peer sees its own packages only
        where = folder  # and leaves its caches there
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=time_limit, env=environment, cwd=where, check=False
    )
    (folder / "log.txt").write_text(done.stdout + "\n" + done.stderr)
    return done


def _last_words(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
