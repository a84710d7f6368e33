"""Operates on one ONNX file for several runtimes, in a process of its own: ONNX Runtime aborts on some damaged graphs.

``python -m components.surgery.worker REQUEST.json ANSWER.json``; `components.surgery.run` writes the one and reads the
other. Every result is written as soon as it is there, so that a crash costs only what comes after it.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.core.files import write_bytes_atomic
from components.surgery.files import read_model, write_model
from components.surgery.operate import operate_apart
from components.surgery.proof import SEEDS
from components.surgery.samples import read_samples
from components.surgery.surgery import Options


def main(request_path: Path, answer_path: Path) -> None:
    """Operates on ``onnx`` for each of the request's ``tasks``: a runtime, the model file and the report to write.

    The answer is ``{}``, or ``{"user_error"}`` for a file that cannot be used.
    """
    request = json.loads(request_path.read_text())
    options = replace(
        Options(),
        nms_rounds=request["nms_rounds"],
        sampling_ratio=request["sampling_ratio"],
        input_shapes=request.get("input_shapes", {}),
    )
    only, skip = request["only"], request["skip"]
    answer = {}
    try:
        skeleton, weights = read_model(Path(request["onnx"]))
        samples = read_samples([Path(path) for path in request["inputs"]], Path(request["onnx"]))
        for task in request["tasks"]:
            runtime = Runtime(task["runtime"])
            operated, report = operate_apart(skeleton, weights, runtime, only, skip, options, [*samples, *SEEDS])
            write_model(operated, weights, Path(task["file"]))
            weights.keep(skeleton)
            write_bytes_atomic(Path(task["report"]), report.model_dump_json().encode())
    except UserError as error:
        answer = {"user_error": str(error)}
    answer_path.write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
