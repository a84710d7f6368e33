"""The step `surgery`: one model for every runtime of the job, each made fit for it, with a report of what was done."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.core.apart import DiedError, run_apart
from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import MANIFEST, SOURCES, Manifest, Status, Variant
from components.core.errors import UserError
from components.core.files import write_bytes_atomic, write_json_atomic
from components.core.onnx_files import refuse_cycle
from components.core.onnx_wire import external_data_files
from components.core.stepping import progress
from components.surgery.diagnosis.diagnose import ADVICE, MEMORY_LIMIT, diagnose
from components.surgery.diagnosis.verdict import Verdict
from components.surgery.partition.fallback import fallback
from components.surgery.registry import SURGERIES
from components.surgery.report import SurgeryReport, to_markdown
from components.surgery.surgery import Options

CANONICAL = "canonical"
REPORT = "surgery_report"
_WORK = ".work"
WORKER = "components.surgery.worker"
TIME_LIMIT = 1800.0
"""Seconds that the work on one model may take."""


@dataclass(frozen=True)
class Choices:
    """What the user wants done, and how far the runtimes are asked about it."""

    only: frozenset[int] | None = None
    """Rows to apply; None: all that a target needs. Row 0 is constant folding."""
    skip: frozenset[int] = frozenset()
    """Rows to leave out."""
    options: Options = field(default_factory=Options)
    inputs: tuple[Path, ...] = ()
    """`.npz` files with real inputs for the proof."""
    build: bool = False
    """Whether the runtimes build what they parse, open dimensions at `options.input_shapes`; in a run of the ladder the
    step `engine` does that next."""
    time_limit: float = TIME_LIMIT
    """Seconds for the work on one model, and for each runtime's answer."""
    memory_limit: float | None = None
    """Bytes for each of them; None: no limit on the work, and `MEMORY_LIMIT` for a runtime."""


@dataclass(frozen=True)
class Operated:
    """What came out for one runtime."""

    report: SurgeryReport | None = None
    file: Path | None = None
    reason: str = ""
    """Why there is nothing."""


def run_surgery(job: Job, exported: Path, out: Path, options: Options | None = None) -> Manifest:
    """Operates on every exported model for every runtime of the job.

    Args:
        job: the job; `target.runtimes` says for which runtimes.
        exported: what `export` made. The models are those of its ``sources/`` manifest; without one, its variant
            `canonical`, or its only ONNX file.
        out: gets ``<runtime>/model.onnx``, ``surgery_report.json``, ``surgery_report.md`` and the manifest.
        options: choices that the graph does not decide; open dimensions are at the job's input shape by default.

    Returns:
        The manifest: a variant ``surgery-<runtime>`` for the first model, ``surgery-<runtime>-<model>`` for others.

    Raises:
        UserError: an ONNX file cannot be read, or there is none.
    """
    folder = exported / SOURCES if (exported / SOURCES / MANIFEST).is_file() else exported
    given = Manifest.read(folder)
    reports: dict[str, SurgeryReport] = {}
    variants: list[Variant] = []
    sources = _sources(given, folder)
    for number, source in enumerate(sources):
        progress(f"operating on {source.id}", number, len(sources))
        names = {runtime: f"surgery-{runtime}" + (f"-{source.id}" if number else "") for runtime in job.target.runtimes}
        results: dict[Runtime, Operated] = {}
        if source.file is not None:
            places = {runtime: out / name.removeprefix("surgery-") for runtime, name in names.items()}
            choices = Choices(options=options or Options(input_shapes={"": job.target.input_shape}))
            results = operate_file(folder / source.file, places, out / _WORK, choices)
        for runtime, name in names.items():
            result = results.get(runtime)
            if result is None:
                variants.append(_without_model(source, name, runtime))
            elif result.report is None or result.file is None:
                failed = {"status": Status.FAILED, "reason": f"surgery failed: {result.reason}"}
                variants.append(_without_model(source, name, runtime).model_copy(update=failed))
            else:
                reports[name] = result.report
                file = str(result.file.relative_to(out))
                variants.append(_variant(source, name, runtime, file, result.report))
    write_reports(reports, out)
    manifest = given.model_copy(update={"variants": variants})
    manifest.write(out)
    return manifest


def operate_file(
    onnx: Path, places: Mapping[Runtime, Path], work: Path, choices: Choices | None = None
) -> dict[Runtime, Operated]:
    """Operates on one ONNX file, any model, for several runtimes, and asks each about it before and after.

    Args:
        onnx: the model.
        places: runtime -> folder that gets its ``model.onnx``, and ``plan/`` where TensorRT refuses that as a whole;
            `torch` is passed over.
        work: folder for the time being.
        choices: what to do and how far to ask.

    Raises:
        UserError: the file, or what `choices` names, cannot be used.
    """
    choices = choices or Choices()
    runtimes = [runtime for runtime in places if runtime is not Runtime.TORCH]
    try:
        finished, died = _operate(onnx, runtimes, work, choices)
        results: dict[Runtime, Operated] = {}
        for runtime in runtimes:
            if runtime not in finished:
                results[runtime] = Operated(reason=died)
                continue
            model, report = finished[runtime]
            progress(f"asking {runtime}")
            before = ask(onnx, runtime, choices)
            after = ask(model, runtime, choices) if report.done else before
            _copy(model, places[runtime] / "model.onnx")
            report = report.model_copy(update={"before": before, "after": after})
            report = fallback(report, places[runtime] / "model.onnx", choices.inputs, choices.time_limit)
            results[runtime] = Operated(report, places[runtime] / "model.onnx")
        return results
    finally:
        shutil.rmtree(work, ignore_errors=True)


def ask(onnx: Path, runtime: Runtime, choices: Choices) -> Verdict:
    """What the runtime says of a file; see `diagnose`."""
    memory = MEMORY_LIMIT if choices.memory_limit is None else choices.memory_limit
    return diagnose(onnx, runtime, choices.build, choices.options.input_shapes, choices.time_limit, memory)


def diagnosis(onnx: Path, runtime: Runtime, choices: Choices) -> SurgeryReport:
    """A report without an operation: only what the runtime says of the file.

    Raises:
        UserError: the file is no ONNX model, or its external data leaves its folder.
    """
    external_data_files(onnx)  # before any native reader follows them
    nodes = _node_count(onnx)
    verdict = ask(onnx, runtime, choices)
    return SurgeryReport(
        target=runtime, records=[], nodes_before=nodes, nodes_after=nodes, seconds=verdict.seconds, before=verdict
    )


def _node_count(onnx: Path) -> int:
    """Nodes of the graph, which has no cycle; an unknown operator, which `load_onnx` refuses, is a finding here."""
    from google.protobuf.message import DecodeError
    from onnx import load

    try:
        model = load(onnx, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise UserError(f"ONNX file {onnx.name}: it is truncated or no ONNX model; export or copy it again") from error
    refuse_cycle(model, onnx)
    return len(model.graph.node)


def write_reports(reports: Mapping[str, SurgeryReport], out: Path) -> None:
    """Writes ``surgery_report.json`` and ``surgery_report.md``."""
    write_json_atomic(
        out / f"{REPORT}.json", {name: report.model_dump(mode="json") for name, report in reports.items()}
    )
    write_bytes_atomic(out / f"{REPORT}.md", to_markdown(reports).encode())


def _operate(
    onnx: Path, runtimes: Sequence[Runtime], work: Path, choices: Choices
) -> tuple[dict[Runtime, tuple[Path, SurgeryReport]], str]:
    """The operated file and the report of each runtime that was reached, and why not all were."""
    work.mkdir(parents=True, exist_ok=True)
    # Runtimes that need the same surgeries share the work.
    groups: dict[tuple[int, ...], list[Runtime]] = {}
    for runtime in runtimes:
        rows = tuple(surgery.row for surgery in SURGERIES if runtime in surgery.targets)
        groups.setdefault(rows, []).append(runtime)
    tasks = {
        group[0]: {
            "runtime": group[0],
            "file": str((work / group[0] / "model.onnx").resolve()),
            "report": str((work / group[0] / "report.json").resolve()),
        }
        for group in groups.values()
    }
    request = {
        "onnx": str(onnx.resolve()),
        "only": None if choices.only is None else sorted(choices.only),
        "skip": sorted(choices.skip),
        "nms_rounds": choices.options.nms_rounds,
        "sampling_ratio": choices.options.sampling_ratio,
        "input_shapes": {name: list(shape) for name, shape in choices.options.input_shapes.items()},
        "inputs": [str(path.resolve()) for path in choices.inputs],
        "tasks": list(tasks.values()),
    }
    died = ""
    try:
        answer = run_apart(WORKER, request, choices.time_limit, choices.memory_limit)
    except DiedError as error:
        died, answer = "; ".join(part for part in (str(error), ADVICE.get(error.end)) if part), {}
    if "user_error" in answer:
        raise UserError(answer["user_error"])
    finished = {}
    for group in groups.values():
        task = tasks[group[0]]
        if Path(task["report"]).is_file():
            report = SurgeryReport.model_validate_json(Path(task["report"]).read_text())
            for runtime in group:
                finished[runtime] = Path(task["file"]), report.model_copy(update={"target": runtime})
    return finished, died


def _copy(model: Path, target: Path) -> None:
    """Copies a model file, and the weights beside it that a file above 2 GiB has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in model.parent.glob(f"{model.name}*"):
        shutil.copyfile(path, target.parent / path.name)


def _sources(given: Manifest, folder: Path) -> list[Variant]:
    canonical = [variant for variant in given.variants if variant.id == CANONICAL]
    if folder.name == SOURCES:
        return sorted(given.variants, key=lambda variant: variant.id != CANONICAL)
    if canonical:
        return canonical
    files = {
        variant.file: variant
        for variant in given.variants
        if variant.file and variant.file.endswith(".onnx") and variant.status is Status.OK
    }
    if len(files) != 1:
        listed = ", ".join(sorted(files)) or "none"
        raise UserError(f"{folder / MANIFEST} lists {len(files)} ONNX files ({listed}); surgery needs exactly one")
    return list(files.values())


def _without_model(source: Variant, name: str, runtime: Runtime) -> Variant:
    status, reason = source.status, source.reason
    if source.file:
        status, reason = Status.SKIPPED, f"surgery is done on ONNX, which {runtime} does not run"
    techniques = [*source.techniques, "surgery"]
    return Variant(id=name, runtime=runtime, techniques=techniques, status=status, reason=reason)


def _variant(source: Variant, name: str, runtime: Runtime, file: str, report: SurgeryReport) -> Variant:
    left = [f"{record.surgery} at {record.node}: {record.why}" for record in report.left]
    reasons = [source.reason, *(["left as they are: " + "; ".join(left[:3])] if left else []), report.plan]
    return Variant(
        id=name,
        runtime=runtime,
        techniques=[*source.techniques, "surgery"],
        reason="; ".join(reason for reason in reasons if reason),
        file=file,
        details=source.details | {"surgery": report.summary()},
    )
