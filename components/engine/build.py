"""Builds an engine in a process of its own; a parse error, a crash or a hang comes back as a reason."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from components.core.apart import DiedError, run_apart
from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.files import sha256_file
from components.core.s3 import cache_folder
from components.core.tensorrt_tools.modules import MODULES
from components.engine.card import EngineCard
from components.engine.reasons import Failure, explain

TIME_LIMIT = 900.0
"""Seconds that one build may take."""
WORKER = "components.engine.build_worker"


class BuildError(Exception):
    """There is no engine; the message is the row's reason."""


def build_engine(
    runtime: Runtime,
    onnx: Path,
    engine: Path,
    compute_capabilities: Sequence[str] = (),
    input_shape: Sequence[int] = (),
    time_limit: float = TIME_LIMIT,
) -> EngineCard:
    """Writes the engine of an ONNX file and returns its card.

    Args:
        runtime: `tensorrt` or `tensorrt-rtx`.
        onnx: strongly typed model; precision is in the graph.
        engine: file to write; it appears whole or not at all.
        compute_capabilities: GPUs to build for, for instance ``["8.6"]``; empty: the builder's own choice. `tensorrt`
            builds for the GPU of this machine only.
        input_shape: [N, 3, H, W], for an input whose dimensions are open.
        time_limit: seconds.

    Raises:
        BuildError: with the parser's or the builder's own words, the node, and the way out where one is known.
        UserError: a compute capability that this module does not build for.
    """
    engine.parent.mkdir(parents=True, exist_ok=True)
    module = MODULES[runtime]
    request = {
        "module": module,
        "onnx": str(onnx.resolve()),
        "engine": str(engine.resolve()),
        "compute_capabilities": list(compute_capabilities),
        "input_shape": list(input_shape),
        "timing_cache": str(_timing_cache(module, compute_capabilities)),
    }
    try:
        answer = run_apart(WORKER, request, time_limit)
    except DiedError as error:
        raise BuildError(f"the build ended without an engine: {error}") from error
    if "unknown_capability" in answer:
        raise UserError(
            f"target.compute_capabilities: {module} {answer['version']} does not build for "
            f"{answer['unknown_capability']}; accepted: {', '.join(answer['known'])}"
        )
    if "failures" in answer:
        raise BuildError(explain([Failure(*failure) for failure in answer["failures"]], answer["log"]))
    card = EngineCard(**answer["card"], onnx_sha256=sha256_file(onnx))
    if card.plugins:
        engine.unlink(missing_ok=True)
        raise BuildError(
            f"{card.plugins} of its layers are plugins, which other machines may lack; see the surgery report"
        )
    return card


def _timing_cache(module: str, compute_capabilities: Sequence[str]) -> Path:
    """One file a module and target: timings of one GPU mean nothing for another."""
    folder = cache_folder() / "timing"
    folder.mkdir(parents=True, exist_ok=True)
    key = json.dumps([module, sorted(compute_capabilities), os.environ.get("CUDA_VISIBLE_DEVICES", "")])
    return folder / f"{module}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.cache"
