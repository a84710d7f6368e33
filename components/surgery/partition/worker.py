"""Partitions one ONNX file, in a process of its own: the parser, the builder and ONNX Runtime may die of a graph.

``python -m components.surgery.partition.worker REQUEST.json ANSWER.json``; `components.surgery.partition.run` writes
the one and reads the other.
"""

import json
import sys
from pathlib import Path

import numpy as np

from components.core.contracts.job import Runtime
from components.core.contracts.run_plan import RUN_PLAN, RunPlan
from components.core.errors import StepError, UserError
from components.core.files import sha256_file, write_bytes_atomic
from components.core.onnx_files import load_onnx
from components.surgery.partition.flow import flow_of, name_nodes
from components.surgery.partition.markdown import to_markdown
from components.surgery.partition.oracle import Oracle
from components.surgery.partition.search import Search
from components.surgery.partition.tensors import Feed, Tensors
from components.surgery.partition.writing import prove_plan, write_parts


def main(request_path: Path, answer_path: Path) -> None:
    """Writes the plan that the request asks for; the answer is ``{}``, ``{"user_error"}`` or ``{"step_error"}``."""
    request = json.loads(request_path.read_text())
    answer = {}
    try:
        make_plan(
            Path(request["onnx"]),
            Runtime(request["target"]),
            Path(request["out"]),
            module=request["module"],
            answers=Path(request["answers"]),
            inputs=[Path(path) for path in request["inputs"]],
            keep_engines=request["keep_engines"],
        )
    except UserError as error:
        answer = {"user_error": str(error)}
    except StepError as error:
        answer = {"step_error": str(error)}
    answer_path.write_text(json.dumps(answer))


def make_plan(
    onnx_file: Path,
    target: Runtime,
    out: Path,
    *,
    module: str,
    answers: Path,
    inputs: list[Path],
    keep_engines: bool,
) -> RunPlan:
    """Writes the parts, `run_plan.json` and `run_plan.md` into `out`; see `components.surgery.partition.run`."""
    model = load_onnx(onnx_file)
    owners = name_nodes(model)
    flow = flow_of(model)
    tensors = Tensors(model, [_read_input(path, flow.inputs) for path in inputs])
    oracle = Oracle(module, answers)
    search = Search(flow, tensors, oracle, owners)
    stretches, small, engines = search.run()
    parts = write_parts(search, stretches, small, engines, target, out, keep_engines=keep_engines)
    plan = RunPlan(
        model=onnx_file.name,
        model_sha256=sha256_file(onnx_file),
        target=target,
        asked=oracle.version,
        inputs=[tensors.plan_tensor(name) for name in flow.inputs],
        outputs=[tensors.plan_tensor(name) for name in flow.outputs],
        parts=parts,
        proof=prove_plan(flow, tensors, parts, out),
        note=search.note,
    )
    write_bytes_atomic(out / "run_plan.md", to_markdown(plan).encode())
    write_bytes_atomic(out / RUN_PLAN, plan.model_dump_json(indent=2).encode())
    return plan


def _read_input(path: Path, names: tuple[str, ...]) -> Feed:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        words = " ".join(str(error).split())
        raise UserError(
            f"input {path}: {words}; give an .npz file with an array for each input of the model"
        ) from error
    if set(found) != set(names):
        given, wanted = ", ".join(sorted(found)) or "none", ", ".join(names)
        raise UserError(f"input {path}: it has the arrays {given}; the model takes {wanted}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
