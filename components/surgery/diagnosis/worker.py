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


def main(request_path: Path, answer_path: Path) -> None:
    """Examines the file as the request asks."""
    warnings.simplefilter("ignore")
    request = json.loads(request_path.read_text())

    def tell(answer: dict[str, Any]) -> None:
        write_bytes_atomic(answer_path, json.dumps(answer, default=str).encode())

    tell(_examine(request, tell))


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
