"""What OpenVINO says of a model: its ONNX reader lists everything that it cannot read, its compiler stops at once."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx

from components.core.runtimes.openvino_core import shared_core
from components.surgery.diagnosis.nodes import Place, attributes, label, places
from components.surgery.diagnosis.search import Failure
from components.surgery.diagnosis.verdict import WHOLE_MODEL, Stage

_UNREAD = re.compile(r"No conversion rule found for operations: (.*)")
_FAILED = re.compile(r"ONNX node '<Node\((?P<op>\w+)\): (?P<name>[^>]*)>'")
_DETAIL = re.compile(r"-- [\w.-]+ with a message:\s*(.*?)(?=\n\s*-- |\nSummary:|\Z)", re.DOTALL)
_COMPILED = re.compile(r"(?:Operation name: |[Oo]f type: \w+ name: )(?P<name>\S+)")
_NOISE = re.compile(
    r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|While validating (?:ONNX )?node '[^\n]*?>?':?"
    r"|FrontEnd API failed with \w+:|with friendly_name '\w+':"
)
Answer = dict[str, Any]


def examine(path: Path, build: bool, tell: Callable[[Answer], None]) -> Answer:
    """Reads, and compiles what can be read, for the CPU."""
    import openvino

    version = openvino.__version__.partition("-")[0]
    answer: Answer = {"version": version, "parses": None, "builds": None, "failures": [], "note": ""}
    tell(answer)
    core = shared_core()
    try:
        model = core.read_model(str(path))
    except Exception as error:
        return answer | {"parses": False, "failures": _failures(path, str(error), Stage.PARSE)}
    answer["parses"] = True
    tell(answer)
    if not build:
        return answer
    try:
        core.compile_model(model, "CPU")
    except Exception as error:
        return answer | {"builds": False, "failures": _failures(path, str(error), Stage.BUILD)}
    return answer | {"builds": True}


def _failures(path: Path, text: str, stage: Stage) -> list[dict[str, Any]]:
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:
        return [Failure(WHOLE_MODEL, "", _sentence(text), stage=stage).to_json()]
    found = list(_reader_failures(model, text)) or [_compiler_failure(model, text, stage)]
    unique = {failure.node: failure for failure in reversed(found)}
    return [failure.to_json() for failure in reversed(unique.values())]


def _reader_failures(model: onnx.ModelProto, text: str) -> Iterator[Failure]:
    for detail in _DETAIL.findall(text):
        named = _FAILED.search(detail)
        if named is None:
            continue
        for place in places(model):
            if place.node.op_type == named["op"] and named["name"] in (place.node.name, *place.node.output):
                yield _failure(place, _sentence(detail), Stage.PARSE)
    if match := _UNREAD.search(text):
        # "Det-17" of the standard domain, "TRT.EfficientNMS_TRT" of others
        operators = {re.sub(r"-\d+$", "", name.strip()).rpartition(".")[2] for name in match.group(1).split(",")}
        for place in places(model):
            if place.node.op_type in operators:
                yield _failure(place, "no conversion rule found for this operator", Stage.PARSE)


def _compiler_failure(model: onnx.ModelProto, text: str, stage: Stage) -> Failure:
    match = _COMPILED.search(text)
    for place in places(model) if match else ():
        if match and match["name"].rstrip(".") in (place.node.name, *place.node.output):
            return _failure(place, _sentence(text), stage)
    return Failure(WHOLE_MODEL, "", _sentence(text), stage=stage)


def _failure(place: Place, words: str, stage: Stage) -> Failure:
    return Failure(label(place.node), place.node.op_type, words, stage=stage, attributes=attributes(place.node))


def _sentence(text: str) -> str:
    return " ".join(_NOISE.sub(" ", text).split())[:400]
