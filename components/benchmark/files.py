"""Benchmarks plain model files, without a job or a pipeline; behind `hasten benchmark`."""

from collections.abc import Sequence
from pathlib import Path

from components.benchmark.measure import Entry, Measured, Progress, Track, measure
from components.benchmark.measurement import conditions, write_measurement
from components.benchmark.process import WorkerError
from components.benchmark.rounds import Pace
from components.benchmark.rows import Origin, Sheet, timing_details, untimed_reason
from components.core.contracts.job import Budget, Metric, Runtime
from components.core.contracts.leaderboard import Candidate
from components.core.contracts.variant import Status, Variant
from components.core.errors import UserError
from components.core.machine import usable_cores
from components.core.runtimes.interface import availability
from components.core.stepping import progress as step_progress
from components.core.tasks.detection_adapter import DetectionAdapter

_BY_SUFFIX = {
    ".onnx": (Runtime.ONNXRUNTIME, Runtime.OPENVINO),
    ".xml": (Runtime.OPENVINO,),
    ".pt2": (Runtime.TORCH,),
    ".engine": (Runtime.TENSORRT_RTX, Runtime.TENSORRT),
}
"""Runtimes that take a kind of file; the first is used unless told otherwise."""
_DEFAULTS = Budget()


def measure_files(
    files: Sequence[Path],
    annotations: Path,
    images: Path,
    out: Path,
    *,
    runtimes: Sequence[Runtime] = (),
    input_size: tuple[int, int] | None = None,
    threads: int | None = None,
    metric: Metric = Metric.MAP50,
    rounds: int = _DEFAULTS.rounds,
    round_time: float = _DEFAULTS.round_time,
    seed: int = _DEFAULTS.seed,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Measures detectors side by side, each in every runtime that is asked for and takes its kind of file.

    Args:
        files: `.onnx`, `.xml` (OpenVINO IR), `.pt2` or `.engine` files; the speed-ups are over the first one, in its
            first runtime.
        annotations: COCO JSON file of the test split.
        images: folder that its `file_name`s are relative to.
        out: gets `measurement.json`, `detections/` and `logs/`.
        runtimes: to use; default: ONNX Runtime for `.onnx`, else the file's own.
        input_size: height and width of the input in pixels; default: as the first file says. Its batch is that of the
            first file, or 1 where that does not fix it; all files must take it.
        threads: CPU threads; default: all cores.
        metric: the one that is called the accuracy.
        rounds: alternating rounds, at least 3.
        round_time: seconds of one model in a round.
        seed: of the bootstrap.
        progress: told what is going on.

    Returns:
        One row a file and runtime, the baseline first; a model that failed or cannot run here has its reason.

    Raises:
        UserError: a file that is missing or of another kind, no runtime for it, annotations that cannot be used, or a
            baseline that does not run.
    """
    if rounds < 3:
        raise UserError(f"rounds {rounds} given; at least 3 are needed for a confidence interval")
    variants = _variants(files, runtimes)
    shape = _input_shape(files[0])
    height, width = input_size or _input_size(files[0], shape)
    adapter = DetectionAdapter(height, width)
    track = Track(
        adapter=adapter,
        split=adapter.read(annotations, images),
        media=images,
        input_shape=(max(shape[0], 1) if len(shape) == 4 else 1, 3, height, width),
        out=out,
        pace=Pace(rounds, round_time, seed),
    )
    out.mkdir(parents=True, exist_ok=True)
    sheet = Sheet("files", metric, [variant.id for variant, _ in variants])
    entries = []
    for variant, folder in variants:
        if reason := availability(variant.runtime):
            sheet.add_untimed(_origin(variant, folder), Status.SKIPPED, untimed_reason(variant, reason))
        else:
            entries.append(Entry(variant, folder, threads or usable_cores()))
    if not entries or entries[0].variant is not variants[0][0]:
        raise UserError(f"the baseline {files[0]} cannot be measured here: {sheet.rows[variants[0][0].id].reason}")

    def add(result: Measured) -> None:
        details = {} if result.failure else timing_details(result, {}) | {"detections": str(result.detections)}
        sheet.add_measured(result, _origin(result.entry.variant, result.entry.folder), details)

    before = conditions()
    try:
        results = measure(entries[0], entries[1:], track, progress or step_progress, each=add)
    except WorkerError as error:
        raise UserError(f"the baseline {files[0]} could not be measured: {error}") from error
    write_measurement(out, {"rounds": rounds, "round_time": round_time, "seed": seed}, before, results)
    return sheet.in_order()


def _variants(files: Sequence[Path], runtimes: Sequence[Runtime]) -> list[tuple[Variant, Path]]:
    found: list[tuple[Variant, Path]] = []
    names: set[str] = set()
    for path in files:
        if path.suffix not in _BY_SUFFIX:
            kinds = ", ".join(_BY_SUFFIX)
            raise UserError(f"{path} is no model file that can be benchmarked; accepted: {kinds}")
        if not path.is_file():
            raise UserError(f"{path} does not exist; check the path")
        possible = _BY_SUFFIX[path.suffix]
        chosen = [runtime for runtime in runtimes if runtime in possible] if runtimes else [possible[0]]
        if not chosen:
            raise UserError(f"{path} runs in {' or '.join(possible)}; add one of them to the runtimes")
        for runtime in chosen:
            name = _unused(f"{path.stem}-{runtime}", path, names)
            found.append((Variant(id=name, runtime=runtime, techniques=[], file=path.name), path.parent))
    if not found:
        raise UserError("no model file was given; give at least one .onnx, .xml, .pt2 or .engine file")
    return found


def _unused(name: str, path: Path, names: set[str]) -> str:
    """`name`, with the folder's name or a number where another file has the name already."""
    for candidate in (name, f"{path.resolve().parent.name}-{name}", *(f"{name}-{count}" for count in range(2, 1000))):
        if candidate not in names:
            names.add(candidate)
            return candidate
    raise UserError(f"too many files named {path.name}")


def _origin(variant: Variant, folder: Path) -> Origin:
    return Origin(variant, str(folder.resolve()), folder / str(variant.file))


def _input_shape(path: Path) -> tuple[int, ...]:
    """Shape of a model's input, -1 where a side is open; empty where the file does not tell."""
    if path.suffix == ".onnx":
        from components.core.onnx_wire import signature

        inputs, _ = signature(path)
        return inputs[0].shape if inputs else ()
    return _ir_shape(path) if path.suffix == ".xml" else ()


def _input_size(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) == 4 and shape[2] > 0 and shape[3] > 0:
        return shape[2], shape[3]
    raise UserError(f"{path} does not fix the height and width of its input; give the input size")


def _ir_shape(path: Path) -> tuple[int, ...]:
    import openvino

    try:
        dimensions = openvino.Core().read_model(path).inputs[0].get_partial_shape()
    except Exception as error:
        raise UserError(f"{path} cannot be read by OpenVINO: {' '.join(str(error).split())}") from error
    return tuple(one.get_length() if one.is_static else -1 for one in dimensions)
