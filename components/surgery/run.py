"""The step `surgery`: one model for every runtime of the job, each made fit for it, with a report of what was done."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from components.core.apart import DiedError, run_apart
from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import MANIFEST, SOURCES, Manifest, Status, Variant
from components.core.errors import UserError
from components.core.files import write_bytes_atomic, write_json_atomic
from components.core.stepping import progress
from components.surgery.registry import SURGERIES
from components.surgery.report import SurgeryReport, to_markdown
from components.surgery.surgery import Options

CANONICAL = "canonical"
REPORT = "surgery_report"
_WORK = ".work"
WORKER = "components.surgery.worker"
TIME_LIMIT = 1800.0
"""Seconds that the work on one model may take."""


def run_surgery(job: Job, exported: Path, out: Path, options: Options | None = None) -> Manifest:
    """Operates on every exported model for every runtime of the job.

    Args:
        job: the job; `target.runtimes` says for which runtimes.
        exported: what `export` made. The models are those of its ``sources/`` manifest; without one, its variant
            `canonical`, or its only ONNX file.
        out: gets ``<runtime>/model.onnx``, ``surgery_report.json``, ``surgery_report.md`` and the manifest.
        options: choices that the graph does not decide.

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
        finished, died = _operate(source, folder, list(names), out, options or Options())
        for runtime, name in names.items():
            if source.file is None or runtime is Runtime.TORCH:
                variants.append(_without_model(source, name, runtime))
            elif runtime not in finished:
                failed = {"status": Status.FAILED, "reason": f"surgery failed: {died}"}
                variants.append(_without_model(source, name, runtime).model_copy(update=failed))
            else:
                model, reports[name] = finished[runtime]
                file = f"{name.removeprefix('surgery-')}/model.onnx"
                _copy(model, out / file)
                variants.append(_variant(source, name, runtime, file, reports[name]))
        shutil.rmtree(out / _WORK, ignore_errors=True)
    write_json_atomic(
        out / f"{REPORT}.json", {name: report.model_dump(mode="json") for name, report in reports.items()}
    )
    write_bytes_atomic(out / f"{REPORT}.md", to_markdown(reports).encode())
    manifest = given.model_copy(update={"variants": variants})
    manifest.write(out)
    return manifest


def _operate(
    source: Variant, folder: Path, runtimes: Sequence[Runtime], out: Path, options: Options
) -> tuple[dict[Runtime, tuple[Path, SurgeryReport]], str]:
    """The operated file and the report of each runtime that was reached, and why not all were."""
    if source.file is None:
        return {}, ""
    out.mkdir(parents=True, exist_ok=True)
    # Runtimes that need the same surgeries share the work.
    groups: dict[tuple[int, ...], list[Runtime]] = {}
    for runtime in runtimes:
        if runtime is not Runtime.TORCH:
            rows = tuple(surgery.row for surgery in SURGERIES if runtime in surgery.targets)
            groups.setdefault(rows, []).append(runtime)
    tasks = {
        group[0]: {
            "runtime": group[0],
            "file": str((out / _WORK / group[0] / "model.onnx").resolve()),
            "report": str((out / _WORK / group[0] / "report.json").resolve()),
        }
        for group in groups.values()
    }
    request = {
        "onnx": str((folder / source.file).resolve()),
        "nms_rounds": options.nms_rounds,
        "sampling_ratio": options.sampling_ratio,
        "tasks": list(tasks.values()),
    }
    died = ""
    try:
        answer = run_apart(WORKER, request, TIME_LIMIT)
    except DiedError as error:
        died, answer = str(error), {}
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
    reasons = [source.reason, *(["left as they are: " + "; ".join(left[:3])] if left else [])]
    return Variant(
        id=name,
        runtime=runtime,
        techniques=[*source.techniques, "surgery"],
        reason="; ".join(reason for reason in reasons if reason),
        file=file,
        details=source.details | {"surgery": report.summary()},
    )
