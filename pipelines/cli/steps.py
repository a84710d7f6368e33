"""Each step of the ladder alone, on plain files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.app import app

if TYPE_CHECKING:
    from components.core.contracts.job import Job, Runtime
    from components.core.contracts.variant import Manifest

_STEPS = "Steps of the ladder, alone"

Out = Annotated[Path, typer.Option("--out", "-o", help="New folder for what the step makes.", show_default=False)]
Onnx = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Runtimes = Annotated[
    str,
    typer.Option("--runtime", "-r", help="`onnxruntime`, `openvino`, `tensorrt`, `tensorrt-rtx`, or several: `a,b`."),
]
Annotations = Annotated[Path, typer.Option(help="COCO JSON file of the images.", show_default=False)]
Images = Annotated[Path, typer.Option(help="Folder that its `file_name`s are relative to.", show_default=False)]
Shape = Annotated[str, typer.Option(help="`N,3,H,W` in pixels. Default: as the model has it.", show_default=False)]


@app.command(rich_help_panel=_STEPS)
def fetch(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job.", show_default=False)],
    out: Out,
    as_json: Json = False,
) -> None:
    """Bring a job's model and data to one folder, checked and hashed: a *bundle*.

    **Example**

    `hasten fetch job.yaml --out work/bundle`
    """
    from components.core.job_file import read_job
    from components.fetch.run import run_fetch
    from pipelines.single_step import output_folder

    job = read_job(job_file)
    with _progress("fetch"), output_folder(out) as folder:
        card = run_fetch(job, folder / "bundle")
        for path in (folder / "bundle").iterdir():
            path.rename(folder / path.name)
        (folder / "bundle").rmdir()
    if as_json:
        typer.echo(card.model_dump_json(indent=2))
    else:
        typer.echo(
            f"{out}: model {', '.join(file.file for file in card.model)}; "
            f"{card.train.samples} train and {card.test.samples} test samples"
        )


@app.command(rich_help_panel=_STEPS)
def export(
    out: Out,
    job_file: Annotated[
        Path | None, typer.Argument(metavar="[JOB.yaml]", help="A job; or give the options below.", show_default=False)
    ] = None,
    factory: Annotated[str, typer.Option(help="`package.module:function` that returns the torch module.")] = "",
    kwargs: Annotated[str, typer.Option(help="Keyword arguments of the factory, as a JSON object.")] = "{}",
    weights: Annotated[Path | None, typer.Option(help="`.safetensors` or a plain state dict.")] = None,
    program: Annotated[Path | None, typer.Option(help="`.pt2` file (torch.export), instead of a factory.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="COCO JSON file of a few images.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    input_shape: Annotated[str, typer.Option(help="`N,3,H,W` in pixels, e.g. `1,3,416,416`.")] = "",
    as_json: Json = False,
) -> None:
    """Export a detector to ONNX: as it is, and re-expressed with static shapes, checked against the eager model.

    The images show what the model finds: parity is checked on four of them, and candidate counts are chosen on all.

    **Examples**

    `hasten export job.yaml --out work/exported`

    `hasten export --factory my.models:detector --weights w.safetensors --annotations train.json --images train
    --input-shape 1,3,640,640 --out work/exported`
    """
    from components.core.job_file import read_job
    from components.export.run import run_export
    from pipelines.ladder.recipe import check_factory
    from pipelines.local.run import search_path
    from pipelines.single_step import bundle_folder, output_folder

    folder = job_file.resolve().parent if job_file else None
    sys.path[:] = list(dict.fromkeys([*search_path(folder), *sys.path]))
    job = (
        read_job(job_file)
        if job_file
        else _export_job(factory, kwargs, weights, program, annotations, images, input_shape)
    )
    check_factory(job)
    with _progress("export"), bundle_folder(job) as bundle, output_folder(out) as target:
        manifest = run_export(job, bundle, target)
    _show(manifest, out, as_json)
    if not as_json:
        typer.echo(f"{'for surgery':<28} {out / 'sources'}")


@app.command(rich_help_panel=_STEPS)
def int8(
    model: Onnx,
    out: Out,
    annotations: Annotated[
        Path | None, typer.Option(help="Of a detector: COCO JSON file of the images.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Of a detector: folder of the images.", show_default=False)
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Of any model: `.npz`, an array an input, samples along the first axis; `labels` too for `top1`.",
            show_default=False,
        ),
    ] = None,
    runtime: Runtimes = "openvino",
    calibration_images: Annotated[int, typer.Option(min=1, help="How many of the images to calibrate with.")] = 128,
    input_shape: Shape = "",
    metric: Annotated[str, typer.Option(help="With --calibration: `sqnr` (dB against FP32) or `top1`.")] = "sqnr",
    max_accuracy_drop: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of `top1`, absolute. Default: any.", show_default=False)
    ] = None,
    min_sqnr: Annotated[
        float | None, typer.Option(help="dB against FP32 that must be reached. Default: any.", show_default=False)
    ] = None,
    calibration_time: Annotated[float, typer.Option(min=0, help="Seconds for trying calibrators.")] = 30.0,
    control_time: Annotated[float, typer.Option(min=0, help="Seconds for restoring layers.")] = 300.0,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds of the timing, with --calibration.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    as_json: Json = False,
) -> int:
    """Quantize an ONNX model to INT8 by post-training quantization, placed as each runtime wants it.

    A detector is calibrated with COCO images. Any other model is with arrays: several placements are tried, timed
    beside FP32 and judged; the fastest that keeps the accuracy is written. Exit code 3: none wins, FP32 is the best.

    **Examples**

    `hasten int8 work/surgered/openvino/model.onnx --runtime openvino --annotations train.json --images train
    --out work/int8`

    `hasten int8 classifier.onnx --runtime openvino,onnxruntime --calibration samples.npz --metric top1
    --max-accuracy-drop 0.01 --out work/int8`
    """
    from components.core.errors import UserError
    from components.int8.run import run_int8
    from pipelines.single_step import data_folder, make_job, on_models, onnx_shape, parse_runtimes, parse_shape

    targets = parse_runtimes(runtime, _onnx_runtimes())
    if calibration is not None:
        from pipelines.cli.int8_arrays import quantize_with_arrays
        from pipelines.int8_file import Wishes

        if annotations or images or input_shape:
            raise UserError("--calibration: cannot be given with --annotations, --images or --input-shape")
        limits = (metric, max_accuracy_drop, min_sqnr, calibration_time, control_time, rounds)
        wishes = Wishes(targets, *limits, threads=threads)
        with _progress("int8"):
            result = quantize_with_arrays(model, calibration, out, wishes)
        return _show_int8(result, as_json)
    if annotations is None or images is None:
        raise UserError("nothing to calibrate with: give --annotations and --images, or --calibration samples.npz")
    if max_accuracy_drop is not None or min_sqnr is not None or metric != "sqnr":
        raise UserError(
            "--metric, --max-accuracy-drop, --min-sqnr: only with --calibration; a detector's are those of its job"
        )
    shape = parse_shape(input_shape) if input_shape else onnx_shape(model)
    budget = {"calibration_images": calibration_images}
    job = make_job(targets, shape, {"onnx": str(model)}, annotations, images, budget=budget)
    with _progress("int8"), data_folder(annotations, images) as bundle:
        manifest = on_models(model, targets, out, shape, lambda models, folder: run_int8(job, models, bundle, folder))
    _show(manifest, out, as_json)
    return 0


@app.command(rich_help_panel=_STEPS)
def fp16(
    model: Onnx,
    out: Out,
    runtime: Runtimes = "openvino",
    input_shape: Shape = "",
    as_json: Json = False,
) -> None:
    """Convert an ONNX model to half precision, the detector's tail left in FP32.

    **Example**

    `hasten fp16 work/surgered/tensorrt-rtx/model.onnx --runtime tensorrt-rtx --out work/fp16`
    """
    from components.fp16.run import run_fp16
    from pipelines.single_step import make_job, on_models, onnx_shape, parse_runtimes, parse_shape

    targets = parse_runtimes(runtime, _onnx_runtimes())
    shape = parse_shape(input_shape) if input_shape else onnx_shape(model)
    job = make_job(targets, shape, {"onnx": str(model)})
    with _progress("fp16"):
        manifest = on_models(model, targets, out, shape, lambda models, folder: run_fp16(job, models, models, folder))
    _show(manifest, out, as_json)


@app.command(rich_help_panel=_STEPS)
def engine(
    model: Onnx,
    out: Out,
    runtime: Annotated[str, typer.Option("--runtime", "-r", help="`tensorrt-rtx` or `tensorrt`.")] = "tensorrt-rtx",
    compute_capability: Annotated[
        str, typer.Option(help="GPUs to build for, e.g. `8.6,8.9`. Default: the builder's own.", show_default=False)
    ] = "",
    input_shape: Shape = "",
    as_json: Json = False,
) -> None:
    """Build a TensorRT engine from an ONNX model; tensorrt-rtx needs no GPU for it.

    **Example**

    `hasten engine work/int8/int8-tensorrt-rtx/model.onnx --compute-capability 8.6 --out work/engine`
    """
    from components.core.contracts.job import Runtime
    from components.engine.run import run_engine
    from pipelines.single_step import make_job, on_models, onnx_shape, parse_runtimes, parse_shape

    targets = parse_runtimes(runtime, [Runtime.TENSORRT, Runtime.TENSORRT_RTX])
    shape = parse_shape(input_shape) if input_shape else onnx_shape(model)
    gpus = [each.strip() for each in compute_capability.split(",") if each.strip()]
    job = make_job(targets, shape, {"onnx": str(model)}, target={"compute_capabilities": gpus})
    with _progress("engine"):
        manifest = on_models(model, targets, out, shape, lambda models, folder: run_engine(job, models, folder))
    _show(manifest, out, as_json)


@app.command(rich_help_panel=_STEPS)
def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE [CANDIDATE]...",
            help="`.onnx`, OpenVINO `.xml`, `.engine` or `run_plan.json` files; `model.onnx@openvino` names a runtime.",
            show_default=False,
        ),
    ],
    annotations: Annotations,
    images: Images,
    out: Out,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds, each alternating between all models.")] = 12,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    device: Annotated[str, typer.Option(help="`cpu`, or `cuda` or `cuda:N` to run engines.")] = "cpu",
    input_shape: Shape = "",
    as_json: Json = False,
) -> None:
    """Measure models side by side: latency, speed-up with its confidence interval, accuracy, size, memory.

    Every model runs in a process of its own; rounds alternate between them: the speed-ups are ratios in one run. The
    engine parts of a run plan run in ONNX Runtime where there is no GPU, and the row says so.

    **Example**

    `hasten benchmark work/exported/stock.onnx work/exported/stock.onnx@openvino work/int8/int8-openvino/model.xml
    --annotations test.json --images test --out work/measured`
    """
    from rich.console import Console

    from pipelines.cli.live import board_table
    from pipelines.single_step import compare, parse_shape

    shape = parse_shape(input_shape) if input_shape else None
    with _progress("benchmark"):
        board = compare(models, annotations, images, shape, out, rounds, threads, device)
    if as_json:
        typer.echo(board.model_dump_json(indent=2))
    else:
        Console(highlight=False).print(board_table(board.model_dump(mode="json")))


def _onnx_runtimes() -> "list[Runtime]":
    from components.core.contracts.job import Runtime

    return [runtime for runtime in Runtime if runtime is not Runtime.TORCH]


def _export_job(
    factory: str,
    kwargs: str,
    weights: Path | None,
    program: Path | None,
    annotations: Path | None,
    images: Path | None,
    input_shape: str,
) -> "Job":
    import json

    from components.core.contracts.job import Runtime
    from components.core.errors import UserError
    from pipelines.single_step import make_job, parse_shape

    needed = {"--annotations": annotations, "--images": images, "--input-shape": input_shape}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise UserError(f"export: {', '.join(missing)} missing; give a JOB.yaml, or all of {', '.join(needed)}")
    try:
        arguments = json.loads(kwargs)
    except ValueError:
        raise UserError(
            f"--kwargs: given {kwargs!r}, accepted: a JSON object, for instance '{{\"num_classes\": 4}}'"
        ) from None
    model = {
        "factory": factory or None,
        "kwargs": arguments,
        "weights": str(weights) if weights else None,
        "program": str(program) if program else None,
    }
    return make_job([Runtime.ONNXRUNTIME], parse_shape(input_shape), model, annotations, images)


def _show(manifest: "Manifest", out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
        return
    for variant in manifest.variants:
        where = str(out / variant.file) if variant.file else str(variant.status)
        reason = f"  ({variant.reason})" if variant.reason else ""
        typer.echo(f"{variant.id:<28} {where}{reason}")


def _show_int8(result: dict[str, Any], as_json: bool) -> int:
    if as_json:
        import json

        typer.echo(json.dumps(result, indent=2))
    else:
        from pipelines.cli.int8_arrays import table

        typer.echo(table(result))
    return 0 if result["met"] else 3


@contextmanager
def _progress(step: str) -> Iterator[None]:
    """Shows on stderr what the step is doing: in place on a terminal, a line a message elsewhere."""
    from rich.console import Console

    from components.core.stepping import listening

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(step) as status:

            def show(message: str, done: float | None, total: float | None) -> None:
                share = f" {done / total:.0%}" if done is not None and total else ""
                status.update(f"{step}: {message}{share}")

            with listening(show):
                yield
    else:
        said: set[str] = set()

        def write(message: str, _done: float | None, _total: float | None) -> None:
            if message not in said:
                said.add(message)
                print(f"{step}: {message}", file=sys.stderr, flush=True)

        with listening(write):
            yield
