"""The step `surgery`: one model for every runtime of the job, each made fit for it, with a report of what was done."""

from collections.abc import Iterator
from pathlib import Path

import onnx

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import MANIFEST, SOURCES, Manifest, Status, Variant
from components.core.errors import UserError
from components.core.files import write_bytes_atomic, write_json_atomic
from components.core.onnx_files import load_onnx, save_onnx
from components.core.stepping import progress
from components.surgery.operate import operate
from components.surgery.registry import SURGERIES
from components.surgery.report import SurgeryReport, to_markdown
from components.surgery.surgery import Options

CANONICAL = "canonical"
REPORT = "surgery_report"


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
    sources = _sources(given, folder)
    reports: dict[str, SurgeryReport] = {}
    variants: list[Variant] = []
    for number, source in enumerate(sources):
        model = load_onnx(folder / source.file) if source.file else None
        finished: dict[tuple[int, ...], tuple[onnx.ModelProto, SurgeryReport]] = {}
        for position, runtime in enumerate(job.target.runtimes):
            name = f"surgery-{runtime}" + (f"-{source.id}" if number else "")
            done = number * len(job.target.runtimes) + position
            progress(f"operating on {source.id} for {runtime}", done, len(sources) * len(job.target.runtimes))
            if model is None or runtime is Runtime.TORCH:
                variants.append(_without_model(source, name, runtime))
                continue
            # Runtimes that need the same surgeries share the work.
            rows = tuple(surgery.row for surgery in SURGERIES if runtime in surgery.targets)
            if rows not in finished:
                finished[rows] = operate(model, runtime, options=options)
            operated, report = finished[rows]
            reports[name] = report.model_copy(update={"target": runtime})
            file = f"{name.removeprefix('surgery-')}/model.onnx"
            save_onnx(operated, out / file)
            variants.append(_variant(source, name, runtime, file, report))
    write_json_atomic(
        out / f"{REPORT}.json", {name: report.model_dump(mode="json") for name, report in reports.items()}
    )
    write_bytes_atomic(out / f"{REPORT}.md", to_markdown(reports).encode())
    manifest = given.model_copy(update={"variants": variants})
    manifest.write(out)
    return manifest


def _sources(given: Manifest, folder: Path) -> list[Variant]:
    canonical = [variant for variant in given.variants if variant.id == CANONICAL]
    if folder.name == SOURCES:
        return sorted(given.variants, key=lambda variant: variant.id != CANONICAL)
    if canonical:
        return canonical
    files = sorted(set(_onnx_files(given)))
    if len(files) != 1:
        listed = ", ".join(files) or "none"
        raise UserError(f"{folder / MANIFEST} lists {len(files)} ONNX files ({listed}); surgery needs exactly one")
    return [next(variant for variant in given.variants if variant.file == files[0])]


def _onnx_files(given: Manifest) -> Iterator[str]:
    for variant in given.variants:
        if variant.file and variant.file.endswith(".onnx") and variant.status is Status.OK:
            yield variant.file


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
