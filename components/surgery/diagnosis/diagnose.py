"""What a runtime says of an ONNX file, every refusal with its node, its row of the table and the way out."""

import importlib.util
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.core.apart import DiedError, End, run_apart
from components.core.contracts.job import Runtime
from components.core.tensorrt_tools.modules import MODULES
from components.core.tensorrt_tools.rules import rule_for
from components.core.tensorrt_tools.words import shortened_words
from components.surgery.diagnosis.verdict import DAMAGED, WHOLE_MODEL, Finding, Seen, Stage, Verdict

WORKER = "components.surgery.diagnosis.worker"
TIME_LIMIT = 600.0
"""Seconds that a runtime may take over one model."""
MEMORY_LIMIT = 8 * 2**30
"""Bytes that it may use."""
_TOOLS = MODULES | {Runtime.OPENVINO: "openvino", Runtime.ONNXRUNTIME: "onnxruntime"}
ADVICE = {
    End.TIME: "try a longer --time-limit; else a smaller model (fewer candidates, a smaller input) shows what is slow",
    End.MEMORY: "try a larger --memory-limit; else a smaller model (fewer candidates, a smaller input)",
}
"""What to do about a limit that was met, here or in the operation itself."""
_CRASH = "this is a fault of the runtime's native code: report it with the model; surgery may remove the cause"


def diagnose(
    onnx: Path,
    target: Runtime,
    build: bool = True,
    shapes: Mapping[str, Sequence[int]] | None = None,
    time_limit: float = TIME_LIMIT,
    memory_limit: float | None = MEMORY_LIMIT,
) -> Verdict:
    """Asks the target about a model, in a process of its own; a crash or a hang there is a finding.

    Args:
        onnx: the file; external data beside it.
        target: a runtime that takes ONNX. `tensorrt` is asked itself where it is installed, and is else judged by
            NVIDIA's list of supported operators.
        build: whether to build (compile) what parses.
        shapes: of inputs with open dimensions, by name; "" for every other one of that many dimensions.
        time_limit: seconds.
        memory_limit: bytes; None: no limit.

    Raises:
        KeyError: `target` is `torch`, which does not run ONNX.
    """
    started = time.monotonic()
    tool: str | None = _TOOLS[target]
    missing = importlib.util.find_spec(str(tool)) is None
    if missing and target is not Runtime.TENSORRT:
        note = f"not asked: the Python module {tool} is not installed here"
        return Verdict(target=target, tool=str(tool), parses=None, stage=Stage.OK, seconds=0.0, note=note)
    tool = None if missing else tool
    with tempfile.TemporaryDirectory(prefix="hasten-") as folder:
        trace = Path(folder) / "node.txt"
        request = {
            "runtime": str(target),
            "module": tool,
            "onnx": str(onnx.resolve()),
            "build": build,
            "shapes": {name: list(shape) for name, shape in (shapes or {}).items()},
            "trace": str(trace),
        }
        try:
            answer = run_apart(WORKER, request, time_limit, memory_limit)
            died, limited = None, False
        except DiedError as error:
            answer, died, limited = error.partial, _death(error, trace), error.end in ADVICE
    findings = [finding_of(failure, target) for failure in answer.get("failures", [])]
    if died is not None:
        # What was found before a limit is not all there is, so the limit comes first.
        findings.insert(0 if limited else len(findings), died)
    elif False in (answer["parses"], answer["builds"]) and not any(finding.refused for finding in findings):
        stage = Stage.PARSE if answer["parses"] is False else Stage.BUILD
        words = "the runtime refuses the model and gives no reason"
        findings.append(Finding(node=WHOLE_MODEL, rule=words, way_out=_CRASH, stage=stage))
    stage = next((finding.stage for finding in findings if finding.refused), Stage.OK)
    if any(finding.stage is Stage.PARSE for finding in findings if finding.refused):
        stage = Stage.PARSE
    return Verdict(
        target=target,
        tool=tool or str(answer.get("tool", "documentation")),
        version=str(answer.get("version", "")),
        parses=answer.get("parses"),
        builds=answer.get("builds"),
        stage=stage,
        findings=findings,
        seconds=round(time.monotonic() - started, 3),
        note=str(answer.get("note", "")),
    )


def finding_of(failure: dict[str, Any], target: Runtime) -> Finding:
    """A failure of a worker as a finding: with its row and its way out."""
    operator, words = failure["operator"], failure["words"]
    rule = rule_for(operator, words, failure.get("attributes"))
    way_out = rule.way_out if rule else "no row of the table is about it: report it with the model"
    if failure.get("rule") == DAMAGED:
        way_out = "export or copy it again; if it is sound, report it with the model"
    if way_out.startswith("surgery row") and target not in MODULES:
        way_out = f"take the form for tensorrt-rtx, which is plain operators: {way_out}"
    seen = Seen(failure.get("seen", Seen.SAID))
    # Behind a cut, something that no rule knows may be an effect of the cut.
    refused = failure.get("refused", True) and not (seen is Seen.BEHIND and rule is None)
    return Finding(
        node=failure["node"],
        operator=operator,
        row=failure.get("row", rule.row if rule else None),
        rule=failure.get("rule") or (rule.refused if rule else shortened_words(words)),
        way_out=way_out,
        words=shortened_words(words),
        source=failure.get("source", ""),
        stage=Stage(failure.get("stage", Stage.PARSE)),
        seen=seen,
        refused=refused,
    )


def _death(error: DiedError, trace: Path) -> Finding:
    """The end of the process as a finding; at which node, where the parser had told."""
    parsed = bool(error.partial.get("parses"))
    stage = Stage.BUILD if parsed else Stage.PARSE
    node, operator = WHOLE_MODEL, ""
    if not parsed and trace.is_file() and (at := trace.read_text(errors="replace")):
        node, _, operator = at.rpartition(" [")
        node, operator = node or at, operator.rstrip("]")
    what = {End.TIME: "hung or was too slow", End.MEMORY: "ran out of its memory"}.get(error.end, "crashed")
    doing = "building" if parsed else "parsing"
    return Finding(
        node=node,
        operator=operator,
        rule=f"the runtime {what} while {doing} the model",
        way_out=ADVICE.get(error.end, _CRASH),
        words=str(error),
        stage=stage,
    )
