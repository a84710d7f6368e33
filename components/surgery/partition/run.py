"""Partitions a model that no surgery makes fit: engine parts, a remainder for ONNX Runtime, a plan to run them."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from components.core.apart import DiedError, End, run_apart
from components.core.contracts.job import Runtime
from components.core.contracts.run_plan import RUN_PLAN, RunPlan
from components.core.errors import StepError, UserError
from components.core.tensorrt_tools.modules import MODULES, missing_module
from components.surgery.partition.oracle import note_death

WORKER = "components.surgery.partition.worker"
TIME_LIMIT = 1800.0
"""Seconds for the search and its proof."""
MEMORY_LIMIT = 16 * 2**30
"""Bytes that it may use."""
MAX_DEATHS = 4
"""Questions that may kill the process before the search is given up."""


def partition(
    model: Path,
    target: Runtime,
    out: Path,
    inputs: Sequence[Path] = (),
    *,
    keep_engines: bool = True,
    time_limit: float = TIME_LIMIT,
) -> RunPlan:
    """Cuts a model into parts that build as engines and parts that run in ONNX Runtime.

    The parts run one after the other. There are as few engine parts as possible, each with a convolution, a matrix
    product or the like in it. Run in ONNX Runtime on the CPU, they are proven to make what the whole model makes.

    Args:
        model: an ONNX file; unlike surgery, this changes no node.
        target: `tensorrt-rtx` or `tensorrt`.
        out: folder that gets `run_plan.json`, `run_plan.md` and the parts.
        inputs: `.npz` files with real inputs to prove on, besides random ones.
        keep_engines: keep the engines that were built to see whether the parts build.
        time_limit: seconds for the search and its proof.

    Returns:
        The plan. A model that TensorRT takes as it is has one engine part and no remainder; one that it does not take
        at all has no engine part.

    Raises:
        UserError: the file, the target or an input cannot be used, or a node runs nowhere.
        StepError: no parser is installed here, or the search was given up.
    """
    module = parser_module(target)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hasten-") as answers:
        request = {
            "onnx": str(model.resolve()),
            "target": target,
            "out": str(out.resolve()),
            "module": module,
            "answers": answers,
            "inputs": [str(path.resolve()) for path in inputs],
            "keep_engines": keep_engines,
        }
        answer = _answer(request, Path(answers), time_limit)
    if "user_error" in answer:
        raise UserError(answer["user_error"])
    if "step_error" in answer:
        raise StepError(answer["step_error"])
    return RunPlan.read(out / RUN_PLAN)


def _answer(request: dict[str, object], answers: Path, time_limit: float) -> dict[str, str]:
    deadline = time.monotonic() + time_limit
    for _ in range(MAX_DEATHS + 1):
        try:
            return run_apart(WORKER, request, max(deadline - time.monotonic(), 1.0), MEMORY_LIMIT)
        except DiedError as error:
            if error.end is End.TIME and time.monotonic() >= deadline:
                raise StepError(f"the model could not be partitioned in {time_limit:g} s") from error
            if not note_death(answers, str(error)):
                raise StepError(f"the model could not be partitioned: {error}") from error
    raise StepError(f"the model could not be partitioned: the parser or the builder died {MAX_DEATHS + 1} times of it")


def parser_module(target: Runtime) -> str:
    """The Python module with NVIDIA's parser and builder.

    Raises:
        UserError: the target has none.
        StepError: it is not installed.
    """
    if target not in MODULES:
        accepted = ", ".join(MODULES)
        raise UserError(f"partition: given the runtime {target}, accepted: {accepted}; the others take every part")
    # TensorRT-RTX is the stricter of the two: a plan that it made holds for both.
    for runtime in (target, Runtime.TENSORRT_RTX):
        if missing_module(runtime) is None:
            return MODULES[runtime]
    raise StepError(f"there is no parser to ask: {missing_module(Runtime.TENSORRT_RTX)}")
