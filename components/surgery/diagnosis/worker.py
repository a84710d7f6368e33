"""Asks one runtime about one ONNX file, in a process of its own: native code that crashes or hangs ends only it.

``python -m components.surgery.diagnosis.worker REQUEST.json ANSWER.json``; `components.surgery.diagnosis.diagnose`
writes the one and reads the other. The answer is written whenever there is something new to say.
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.core.contracts.job import Runtime
from components.core.files import write_bytes_atomic
from components.surgery.diagnosis.verdict import DAMAGED, WHOLE_MODEL


def main(request_path: Path, answer_path: Path) -> None:
    """Examines the file as the request asks."""
    warnings.simplefilter("ignore")
    request = json.loads(request_path.read_text())

    told: dict[str, Any] = {"parses": None, "builds": None, "failures": []}

    def tell(answer: dict[str, Any]) -> None:
        told.update(answer)
        write_bytes_atomic(answer_path, json.dumps(answer, default=str).encode())

    try:
        answer = _examine(request, tell)
    except Exception as error:  # of a damaged file mostly; what the runtime had said of it stays
        words = f"the graph cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        stage = "build" if told["parses"] else "parse"
        failure = {"node": WHOLE_MODEL, "operator": "", "words": words, "rule": DAMAGED, "stage": stage}
        answer = told | {"parses": told["parses"] or False, "failures": [*told["failures"], failure]}
    tell(answer)


def _examine(request: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    path, runtime = Path(request["onnx"]), Runtime(request["runtime"])
    if runtime is Runtime.ONNXRUNTIME:
        from components.surgery.diagnosis import onnxruntime_probe

        return onnxruntime_probe.examine(path, tell)
    if runtime is Runtime.OPENVINO:
        from components.surgery.diagnosis import openvino_probe

        return openvino_probe.examine(path, request["build"], tell)
    if request["module"] is None:
        from components.surgery.diagnosis import documented

        return documented.examine(path)
    from components.surgery.diagnosis import tensorrt_probe

    return tensorrt_probe.examine(
        request["module"], path, request["build"], request["shapes"], Path(request["trace"]), tell
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
