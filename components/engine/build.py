"""Builds an engine in a subprocess with a time limit; a parse error, a crash or a hang comes back as a reason."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from components.core.contracts.job import Runtime
from components.core.files import sha256_file
from components.core.s3 import cache_folder

MODULES = {Runtime.TENSORRT: "tensorrt", Runtime.TENSORRT_RTX: "tensorrt_rtx"}
TIME_LIMIT = 900.0
"""Seconds that one build may take."""
_KNOWN_WAYS_OUT = {
    "NonMaxSuppression": "hasten surgery replaces it (row 12)",
    "RoiAlign": "hasten surgery replaces it (row 14)",
    "NonZero": "hasten surgery replaces it where the size can be fixed (row 15)",
    "If": "hasten surgery folds it where the condition is constant (row 18)",
}


class BuildError(Exception):
    """There is no engine; the message is the row's reason."""


def missing_module(runtime: Runtime) -> str | None:
    """Why this machine cannot build for a runtime, or None when it can."""
    module = MODULES[runtime]
    if importlib.util.find_spec(module) is not None:
        return None
    where = "the TensorRT image" if runtime is Runtime.TENSORRT else "the extra hasten[tensorrt-rtx]"
    return f"the Python module {module} is not installed here; it is in {where}"


def build_engine(
    runtime: Runtime, onnx: Path, engine: Path, compute_capabilities: list[str], time_limit: float = TIME_LIMIT
) -> dict[str, Any]:
    """Writes the engine of an ONNX file and returns its card.

    Args:
        runtime: `tensorrt` or `tensorrt-rtx`.
        onnx: strongly typed model; precision is in the graph.
        engine: file to write.
        compute_capabilities: GPUs to build for, for instance ``["8.6"]``; empty: the builder's own choice.
        time_limit: seconds.

    Raises:
        BuildError: with the parser's or the builder's own words, the node, and the way out where one is known.
    """
    engine.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        request, answer, log = (Path(folder) / name for name in ("request.json", "answer.json", "log.txt"))
        cache = _timing_cache(MODULES[runtime], compute_capabilities)
        fields = {
            "module": MODULES[runtime],
            "onnx": str(onnx),
            "engine": str(engine),
            "compute_capabilities": compute_capabilities,
            "timing_cache": str(cache),
        }
        request.write_text(json.dumps(fields))
        code = _run(request, answer, log, time_limit)
        words = log.read_text(errors="replace")
        if code is None:
            raise BuildError(f"the build took longer than {time_limit:g} s and was stopped")
        if not answer.exists():
            raise BuildError(_crash(code, words))
        result = json.loads(answer.read_text())
    if "errors" in result:
        raise BuildError(explain(result["errors"], words))
    card: dict[str, Any] = result["card"]
    return card | {"onnx_sha256": sha256_file(onnx)}


def explain(errors: list[dict[str, str]], log: str) -> str:
    """The builder's errors as one line: node, rule in its own words, way out."""
    first = errors[0] if errors else {"node": "", "operator": "", "words": ""}
    operator = first["operator"] or _operator_in(log)
    where = f"{operator} {first['node']}".strip()
    words = first["words"] if first["operator"] else (_last_error(log) or first["words"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    way_out = f"; {_KNOWN_WAYS_OUT[operator]}" if operator in _KNOWN_WAYS_OUT else ""
    return f"{where}: {' '.join(words.split())[:300]}{more}{way_out}" if where else f"{words[:300]}{more}{way_out}"


def _operator_in(log: str) -> str:
    return next((name for name in _KNOWN_WAYS_OUT if name in log), "")


def _last_error(log: str) -> str:
    lines = [line.split("[E]", 1)[1].strip() for line in log.splitlines() if "[E]" in line]
    return lines[0] if lines else ""


def _crash(code: int, log: str) -> str:
    last = (log.strip().splitlines() or ["it said nothing"])[-1]
    if code < 0:
        return f"the builder crashed ({signal.Signals(-code).name}): {last[:300]}"
    return last[:300]


def _run(request: Path, answer: Path, log: Path, time_limit: float) -> int | None:
    """Exit code of the worker, or None when it was stopped at the time limit."""
    command = [sys.executable, "-m", "components.engine.build_worker", str(request), str(answer)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=False
        )
        try:
            return process.wait(timeout=time_limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
        except BaseException:
            process.kill()
            raise


def _timing_cache(module: str, compute_capabilities: list[str]) -> Path:
    """One file a module and target: timings of one GPU mean nothing for another."""
    folder = cache_folder() / "timing"
    folder.mkdir(parents=True, exist_ok=True)
    key = json.dumps([module, sorted(compute_capabilities), os.environ.get("CUDA_VISIBLE_DEVICES", "")])
    return folder / f"{module}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.cache"
