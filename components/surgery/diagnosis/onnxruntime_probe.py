"""What ONNX Runtime says of a model; runs in the worker, since it aborts on some damaged graphs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from components.surgery.diagnosis.search import Complaint, Failure, failures
from components.surgery.diagnosis.verdict import WHOLE_MODEL

_NAMED = (
    re.compile(r"implementation for (?P<op>\w+)\(-?\d+\) node with name '(?P<name>[^']*)'"),
    re.compile(r"\((?P<op>\w+)\) bound to .* in node \((?P<name>[^)]*)\)"),
    re.compile(r"of operator \((?P<op>\w+)\) in node \((?P<name>[^)]*)\)"),
    re.compile(r'In Node, \("(?P<name>[^"]*)", (?P<op>\w+),'),
    re.compile(r"Fatal error: (?:[\w.]*:)?(?P<op>\w+)\(-?\d+\) is not a registered"),
    re.compile(r"[Nn]ode \((?P<name>[^)]*)\) [Oo]p \((?P<op>\w+)\)"),
    re.compile(r"[Nn]ode:? ?\(?'?(?P<name>[^')]+)'?\)?.* [Oo]p(?:_type)?:? ?\(?(?P<op>\w+)\)?"),
)
_HEAD = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (?:Load model from \S+ failed: ?)?")
Answer = dict[str, Any]


def examine(path: Path, tell: Callable[[Answer], None]) -> Answer:
    """Creates sessions until nothing is refused; `parses` and `builds` are one thing here."""
    import onnxruntime

    answer: Answer = {"version": onnxruntime.__version__, "parses": None, "builds": None, "failures": [], "note": ""}
    tell(answer)
    refused = _refusal(str(path))
    answer["parses"] = answer["builds"] = refused is None
    if refused is None:
        return answer
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        answer["failures"] = [Failure(WHOLE_MODEL, "", f"{refused.words}; {type(error).__name__}").to_json()]
        return answer

    def ask(part: onnx.ModelProto) -> list[Complaint]:
        said = _refusal(part.SerializeToString(), path.parent)
        return [] if said is None else [said]

    for failure in failures(model, [refused], ask):
        answer["failures"].append(failure.to_json())
        tell(answer)
    return answer


def _refusal(model: str | bytes, folder: Path | None = None) -> Complaint | None:
    """What ONNX Runtime has against a file, or against a model in memory whose external data is in `folder`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        words = _HEAD.sub("", " ".join(str(error).split()))
        found = next((match.groupdict() for form in _NAMED if (match := form.search(words))), {})
        return Complaint(words[:400], found.get("op", ""), found.get("name", ""))
    return None
