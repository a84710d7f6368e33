"""Runs the step `surgery` on damaged files, each in a fork of this process, which has imported everything already.

``python fuzz_server.py FIRST LAST FOLDER``: the cases FIRST <= n < LAST; one JSON object a line on standard output.
What differs from the real step is only how its process apart is started: by a fork and not by a new Python.
"""

import importlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from fuzz_mutations import damaged

from components.core import apart
from components.core.apart import End
from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import UserError
from components.core.onnx_files import load_onnx
from components.surgery import run as surgery_run
from components.surgery.partition import oracle
from components.surgery.partition import run as partition_run

CPU_LIMIT, WALL_LIMIT = 20, 300
"""Seconds for one process; the real limits are for real models. A busy machine may stand still for a minute, so that
the clock on the wall only stops what waits for ever."""
MEMORY = 6 * 2**30
IMPORTED = (
    "components.surgery.worker",
    "components.surgery.diagnosis.worker",
    "components.surgery.partition.worker",
    "components.surgery.diagnosis.onnxruntime_probe",
    "components.surgery.diagnosis.tensorrt_probe",
    "onnxruntime",
    "tensorrt_rtx",
)
"""So that a fork has them."""
RUNTIMES = (Runtime.TENSORRT_RTX, Runtime.ONNXRUNTIME)


def run_forked(command: list[str], log: Path, time_limit: float, memory_limit: float | None) -> int | End:
    """What `apart._run` does, with a fork instead of a new process."""
    _, _, module, question, answer = command
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open("wb") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT + 5))
            importlib.import_module(module).main(Path(question), Path(answer))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + min(time_limit, WALL_LIMIT)
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return End.TIME if code == -signal.SIGXCPU else code
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return End.TIME


def job(runtime: Runtime) -> Job:
    split = {"annotations": "/a.json", "images": "/i"}
    return Job.model_validate(
        {
            "name": "fuzz",
            "model": {"onnx": "/m.onnx"},
            "data": {"train": split, "test": split},
            "target": {"runtimes": [runtime], "input_shape": [1, 3, 32, 32]},
            "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.1},
        }
    )


def outcome(number: int, folder: Path) -> dict[str, object]:
    """What became of one case: `result`, `refused` or `finding`, or the reason why it is none of them."""
    case = damaged(number)
    runtime = RUNTIMES[number % 4 == 3]
    source, out = folder / "in", folder / "out"
    for path in (source, out):
        shutil.rmtree(path, ignore_errors=True)
    source.mkdir()
    (source / "model.onnx").write_bytes(case.model)
    if case.data:
        (source / "model.data").write_bytes(case.data)
    variant = Variant(id="canonical", runtime=runtime, techniques=[], file="model.onnx")
    Manifest(task="detection", input_shape=(1, 3, 32, 32), variants=[variant]).write(source)
    about = {"case": number, "seed": case.seed, "way": case.way, "runtime": str(runtime)}
    started = time.monotonic()
    try:
        manifest = surgery_run.run_surgery(job(runtime), source, out)
        found = _judged(manifest, out)
    except UserError as error:
        words = str(error)
        found = {"kind": "refused" if len(words.splitlines()) == 1 else "refused in several lines", "words": words}
    except Exception:
        found = {"kind": "the step failed", "words": traceback.format_exc()}
    return about | found | {"seconds": round(time.monotonic() - started, 3)}


def _judged(manifest: Manifest, out: Path) -> dict[str, object]:
    (variant,) = manifest.variants
    if (out / ".work").exists():
        return {"kind": "left its work behind", "words": ""}
    if variant.status is Status.FAILED:
        left = [path.name for path in out.rglob("*.onnx")]
        kind = "finding" if "crashed with SIG" in variant.reason else f"not a crash of native code, left {left}"
        return {"kind": kind, "words": variant.reason}
    try:
        load_onnx(out / str(variant.file))
    except UserError as error:
        return {"kind": "wrote a damaged model", "words": str(error)}
    plan = str(variant.details["surgery"].get("plan", ""))
    if "ended with code" in plan or "other numbers" in plan:
        return {"kind": "the plan failed", "words": plan}
    failed = [words for words in variant.details["surgery"]["left"] if "failed on this graph" in words]
    return {"kind": "result", "words": "; ".join(failed)}


def main(first: int, last: int, folder: Path) -> None:
    """Runs the cases and prints what became of them."""
    apart._run = run_forked
    # A builder that is slow with a size of two thousand millions is no news.
    oracle.QUESTION_LIMIT = 3
    partition_run.MAX_DEATHS = 1
    for module in IMPORTED:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, last):
        print(json.dumps(outcome(number, folder)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
