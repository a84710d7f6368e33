"""The acceptance table of surgery as data: every row's cases, and one function that judges a case.

`table/cases_rowNN.py` holds the cases of a row. `test_surgery_table.py` asserts on each verdict and
``tests/benchmarks/surgery_table.py`` prints them.
"""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from surgery_graphs import RTX, rtx

from components.core.contracts.job import Runtime
from components.surgery.evaluate import EvaluationError, Model
from components.surgery.feeds import dimensions, feed, inputs_of
from components.surgery.operate import operate
from components.surgery.proof import difference
from components.surgery.report import Record
from components.surgery.surgery import Options, Outcome

TABLE = Path(__file__).with_name("table")
SEEDS = (11, 12, 13)
Feed = dict[str, np.ndarray]
Reference = Callable[[Feed], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """One graph that shows the problem of a row."""

    name: str
    model: Callable[[], onnx.ModelProto]
    before: str
    """What tensorrt-rtx says of the graph as it is: `ok`, `reject` (does not parse) or `build` (does not build)."""
    after: str = "ok"
    """`ok`, or `diagnosis` where the table allows that the node is named with a way out and left."""
    feeds: Callable[[np.random.Generator], Feed] | None = None
    """Own inputs; default: random ones, in several sizes where a dimension is open."""
    tolerance: float = 1e-5
    target: Runtime = RTX
    options: Options = field(default_factory=Options)
    reference: Reference | None = None
    """What the graph means, where ONNX Runtime cannot run it as it is."""
    changes: bool = True
    """Whether there is something to do at all; False for a graph that only shows that it is taken as it is."""
    by: int | None = None
    """Row of the surgery that repairs it, where that is another one: folding (0) or the opset (41)."""


@dataclass(frozen=True)
class Judgement:
    """What became of a case."""

    before: str
    after: str
    records: list[Record]
    """Of the surgery that the case is about."""
    error: float | None
    """Largest relative error over all inputs; None: neither ONNX Runtime nor a reference could run the graph."""
    compared: int
    """On how many inputs."""
    plugins: int
    words: str
    """What tensorrt-rtx said last."""
    model: onnx.ModelProto


def cases() -> dict[int, list[Case]]:
    """The cases by row."""
    found = {}
    for path in sorted(TABLE.glob("cases_row*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[int(re.sub(r"\D", "", path.stem))] = module.CASES
    return found


def judge(row: int, case: Case) -> Judgement:
    """Operates on a case with all surgeries on, and asks TensorRT-RTX and ONNX Runtime before and after."""
    model = case.model()
    before = rtx(model)
    after, report = operate(model, case.target, options=case.options)
    verdict = rtx(after)
    errors = _errors(model, after, case)
    return Judgement(
        before=before.stage,
        after=verdict.stage,
        records=[record for record in report.records if record.row == (row if case.by is None else case.by)],
        error=max(errors, default=None),
        compared=len(errors),
        plugins=verdict.plugins,
        words=verdict.words,
        model=after,
    )


def verdict_of(case: Case, judgement: Judgement) -> str:
    """Why a case fails, or an empty text when it is as the table wants it."""
    if judgement.before != case.before:
        return f"TensorRT-RTX says {judgement.before!r} of the graph as it is, the case expects {case.before!r}"
    outcomes = {record.outcome for record in judgement.records}
    if case.after == "diagnosis":
        refused = [record for record in judgement.records if record.outcome is Outcome.REFUSED]
        return "" if refused and all(r.node and r.why and r.what for r in refused) else "no refusal names a node"
    if case.changes and Outcome.DONE not in outcomes:
        return f"the row was not applied: {[record.why for record in judgement.records]}"
    if Outcome.ROLLED_BACK in outcomes:
        return f"taken back: {[record.note for record in judgement.records]}"
    if judgement.after != "ok" or judgement.plugins:
        return f"after surgery: {judgement.after}, {judgement.plugins} plugins: {judgement.words}"
    if judgement.error is None:
        return "the outputs could not be compared"
    return "" if judgement.error <= case.tolerance else f"outputs differ by {judgement.error:.1e}"


def _errors(model: onnx.ModelProto, after: onnx.ModelProto, case: Case) -> list[float]:
    new = Model(after)
    kept = {value.name for value in after.graph.input}
    old = case.reference or _runner(model)
    if old is None:
        return []
    errors = []
    for inputs in _feeds(model, after, case):
        try:
            expected = old(inputs)
        except EvaluationError:
            continue  # such as a size that the model does not take
        found = new({name: value for name, value in inputs.items() if name in kept})
        errors.append(max(difference(expected[name], found[name], padded=True) for name in expected))
    return errors


def _runner(model: onnx.ModelProto) -> Model | None:
    try:
        return Model(model)
    except EvaluationError:
        return None


def _feeds(model: onnx.ModelProto, after: onnx.ModelProto, case: Case) -> list[Feed]:
    if case.feeds is not None:
        return [case.feeds(np.random.default_rng(seed)) for seed in SEEDS]
    given = inputs_of(model, after)
    return [feed(given, seed, size) for size in dimensions(given)[:3] for seed in SEEDS]
