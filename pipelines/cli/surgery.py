"""`hasten surgery`: what a runtime refuses of a model, what is done about it, and what is left and why."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.app import app
from pipelines.cli.steps import _STEPS, Json, Onnx, _onnx_runtimes, _progress

if TYPE_CHECKING:
    from components.core.contracts.job import Runtime
    from components.surgery.report import SurgeryReport
    from components.surgery.run import Choices

_MIB = 2**20


@app.command(rich_help_panel=_STEPS)
def surgery(
    model: Onnx,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="New folder for what is made; --dry-run needs none.", show_default=False),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime", "-r", help="`tensorrt-rtx`, `tensorrt`, `openvino`, `onnxruntime`, or several: `a,b`."
        ),
    ] = "tensorrt-rtx",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only diagnose: nothing is changed.")] = False,
    only: Annotated[str, typer.Option(help="Rows of the table to apply, e.g. `1,12`. Default: all.")] = "",
    skip: Annotated[str, typer.Option(help="Rows of the table to leave out; 0 is constant folding.")] = "",
    build: Annotated[bool, typer.Option(help="Let the runtime build what it parses, before and after.")] = True,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Shape that inputs with open dimensions are pinned to for TensorRT (row 40): `1,3,224,224`, or "
            "`NAME=1,128`. May be repeated. Default: they stay open, and a few sizes are tried in the build.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            help="`.npz` file with one array for each input, to prove on besides random ones. May be repeated.",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds for the operation, and for each answer of a runtime.")
    ] = 1800,
    memory_limit: Annotated[
        int | None,
        typer.Option(min=64, help="MiB for each of them. Default: 8192 for a runtime's answer.", show_default=False),
    ] = None,
    nms_rounds: Annotated[
        int, typer.Option(min=1, max=256, help="Rounds of the fixed-point NMS (row 12) to start with.")
    ] = 32,
    sampling_ratio: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="Samples for a RoiAlign that leaves their number to each box (row 14)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an ONNX model fit for a runtime, prove that it computes the same, and explain what is left.

    The runtime's own parser and builder are asked before and after, in a process of their own: a crash or a hang of
    native code is a finding like any other. Every finding has its node, the row of the surgery table, and a way out.
    Any ONNX model will do: detectors, classifiers, text, audio. The report is in `surgery_report.md` and `.json`.

    **Examples**

    `hasten surgery model.onnx --dry-run` says what TensorRT-RTX refuses, and changes nothing.

    `hasten surgery model.onnx --runtime tensorrt-rtx,openvino --out work/surgered`

    `hasten surgery model.onnx --only 1,12 --input frame.npz --out work/surgered`

    **Exit codes**: 0 every runtime takes the result (or, with `--dry-run`, the model as it is), 1 something is left
    that a runtime refuses (the report says what and why), 2 bad input.
    """
    from components.core.errors import UserError
    from components.surgery.run import Choices
    from components.surgery.surgery import Options
    from pipelines.single_step import parse_runtimes

    targets = parse_runtimes(runtime, _onnx_runtimes())
    if out is None and not dry_run:
        raise UserError("--out: missing; give a folder for the model, or --dry-run to diagnose only")
    choices = Choices(
        only=_rows("--only", only, targets) if only else None,
        skip=_rows("--skip", skip, targets) if skip else frozenset(),
        options=Options(
            nms_rounds=nms_rounds, sampling_ratio=sampling_ratio, input_shapes=_shapes(input_shape or [], model)
        ),
        inputs=tuple(inputs or ()),
        build=build,
        time_limit=time_limit,
        memory_limit=None if memory_limit is None else memory_limit * _MIB,
    )
    if both := sorted((choices.only or frozenset()) & choices.skip):
        raise UserError(f"--only and --skip both name row {both[0]}; name it in one of them")
    with _progress("surgery"):
        results = (
            _diagnose(model, targets, out, choices) if dry_run else _operate(model, targets, out or Path(), choices)
        )
    reports = {target: report for target, (report, _) in results.items() if report is not None}
    if as_json:
        import json

        documents = {str(target): report.model_dump(mode="json") for target, report in reports.items()}
        typer.echo(json.dumps(documents, indent=2))
    else:
        from rich.console import Console

        from pipelines.cli.surgery_table import show

        console = Console(highlight=False)
        show(console if console.is_terminal else Console(highlight=False, width=140), reports, out)
    _end(results, "" if input_shape or dry_run else _advice(model))


Results = dict["Runtime", tuple["SurgeryReport | None", str]]
"""Runtime -> its report, or why there is none."""


def _operate(model: Path, targets: "Sequence[Runtime]", out: Path, choices: "Choices") -> Results:
    from components.surgery.run import operate_file, write_reports
    from pipelines.single_step import output_folder

    with output_folder(out) as folder:
        places = {target: folder / target for target in targets}
        results = operate_file(model, places, folder / ".work", choices)
        reports = {str(target): result.report for target, result in results.items() if result.report is not None}
        write_reports(reports, folder)
    return {target: (result.report, result.reason) for target, result in results.items()}


def _diagnose(model: Path, targets: "Sequence[Runtime]", out: Path | None, choices: "Choices") -> Results:
    from components.core.stepping import progress
    from components.surgery.run import diagnosis, write_reports
    from pipelines.single_step import output_folder

    reports = {}
    for number, target in enumerate(targets):
        progress(f"asking {target}", number, len(targets))
        reports[target] = diagnosis(model, target, choices)
    if out is not None:
        with output_folder(out) as folder:
            write_reports({str(target): report for target, report in reports.items()}, folder)
    return {target: (report, "") for target, report in reports.items()}


def _advice(model: Path) -> str:
    """What to try where something of a model with open dimensions is left."""
    opened = [f"{one.name} {_words(one.shape)}" for one in _inputs(model) if any(size < 0 for size in one.shape)]
    return f"; open inputs hide sizes from surgery, --input-shape pins them: {', '.join(opened)}" if opened else ""


def _end(results: Results, advice: str) -> None:
    """Exit code 1, with a line a runtime, where something is left.

    Args:
        results: of all runtimes.
        advice: what else can be tried where TensorRT refuses something.

    Raises:
        StepError: something is left.
    """
    from components.core.errors import StepError
    from components.surgery.diagnosis.verdict import WHOLE_MODEL
    from components.surgery.surgery import TENSORRT_TARGETS

    lines = []
    for target, (report, reason) in results.items():
        last = None if report is None else report.after or report.before
        if report is None:
            lines.append(f"{target}: surgery failed: {reason}")
        elif last is not None and not last.accepted:
            first = report.refused[0]
            more = f" (and {len(report.refused) - 1} more)" if len(report.refused) > 1 else ""
            where = "" if first.finding.node == WHOLE_MODEL else f" at {first.finding.node}"
            parts = f"; in parts: {report.plan}" if report.plan else ""
            is_about_shapes = target in TENSORRT_TARGETS and first.finding.row is not None
            more_to_try = advice if is_about_shapes and "--input-shape" not in first.way_out else ""
            why = first.why or first.finding.rule
            lines.append(f"{target}: {last.brief()}{where}: {why}{more}; {first.way_out}{more_to_try}{parts}")
    if lines:
        raise StepError(" | ".join(lines))


def _rows(option: str, text: str, targets: "Collection[Runtime]") -> frozenset[int]:
    """``1,12`` -> {1, 12}.

    Raises:
        UserError: no such row, or none that is done for these runtimes.
    """
    from components.core.errors import UserError
    from components.surgery.registry import SURGERIES

    known = {each.row: each for each in SURGERIES}
    accepted = ", ".join(str(row) for row in sorted(known))
    rows = [part.strip() for part in text.split(",")]
    for row in rows:
        if not row.isdigit() or int(row) not in known:
            raise UserError(f"{option}: given {row!r}, accepted: {accepted}")
        if option == "--only" and known[int(row)].targets.isdisjoint(targets):
            wanted = ", ".join(sorted(known[int(row)].targets))
            raise UserError(f"{option}: row {row} is not done for {', '.join(targets)}; accepted with it: {wanted}")
    return frozenset(int(row) for row in rows)


def _shapes(texts: Sequence[str], model: Path) -> dict[str, list[int]]:
    """``["1,3,224,224", "mask=1,128"]`` -> shape by input; a shape without a name is for all inputs that it fits.

    Raises:
        UserError: the model is missing or no ONNX file, it has no such input, or the shape does not fit it.
    """
    from components.core.errors import UserError

    inputs = _inputs(model)
    shapes: dict[str, list[int]] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        parts = sizes.split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise UserError(f"--input-shape: given {text!r}, accepted: `1,3,224,224` or `NAME=1,128`")
        shape = [int(part) for part in parts]
        fitting = [one for one in inputs if name in ("", one.name) and _fits(shape, one.shape)]
        if not fitting:
            listed = ", ".join(f"{one.name} {_words(one.shape)}" for one in inputs)
            raise UserError(f"--input-shape: {text} fits no input; the model has: {listed}")
        shapes |= {one.name: shape for one in fitting}
    return shapes


def _inputs(model: Path) -> Sequence[Any]:
    from components.core.errors import UserError
    from components.core.onnx_wire import signature

    if not model.is_file():
        raise UserError(f"ONNX file {model}: there is no such file; give the path of an .onnx file")
    try:
        return signature(model)[0]
    except UserError:
        words = "it is truncated or no ONNX model; export or copy it again"
        raise UserError(f"ONNX file {model.name}: {words}") from None


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(size in (-1, given) for given, size in zip(shape, wanted, strict=True))


def _words(shape: Sequence[int]) -> str:
    return "[" + ", ".join("?" if size < 0 else str(size) for size in shape) + "]"
