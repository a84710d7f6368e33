"""One step on plain files: what the DAG would hand to it is made up in a temporary folder around the user's files."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.core.contracts.job import Job, Runtime, Task
from components.core.contracts.leaderboard import Leaderboard
from components.core.contracts.run_plan import RUN_PLAN
from components.core.contracts.variant import Manifest, Variant
from components.core.errors import UserError
from components.core.files import staging
from components.core.job_file import describe

_RUNTIME_OF = {".onnx": Runtime.ONNXRUNTIME, ".xml": Runtime.OPENVINO, ".engine": Runtime.TENSORRT_RTX}
_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)


def make_job(
    runtimes: Sequence[Runtime],
    input_shape: Sequence[int],
    model: dict[str, Any],
    annotations: Path | None = None,
    images: Path | None = None,
    target: dict[str, Any] | None = None,
    budget: dict[str, Any] | None = None,
) -> Job:
    """The job that a single step is given: no step reads the goal, and both splits are the one that was given.

    Raises:
        UserError: a value is not one that a job could have.
    """
    split = {"annotations": str(annotations or "none"), "images": str(images or "none")}
    fields = {
        "name": "single-step",
        "model": model,
        "data": {"train": split, "test": split},
        "target": {"runtimes": list(runtimes), "input_shape": list(input_shape), **(target or {})},
        "goal": {"min_speedup": "2x", "max_accuracy_drop": 1.0},
        "budget": budget or {},
    }
    try:
        return Job.model_validate(fields)
    except ValidationError as error:
        raise UserError("\n".join(describe(error, Job))) from None


def parse_runtimes(text: str, accepted: Sequence[Runtime]) -> list[Runtime]:
    """``openvino,tensorrt-rtx`` -> the two runtimes.

    Raises:
        UserError: no such runtime, or not one of those that the step works for.
    """
    known = [str(runtime) for runtime in accepted]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"--runtime: given {name!r}, accepted: {', '.join(known)}")
    return [Runtime(name) for name in dict.fromkeys(names)]


def parse_shape(text: str) -> list[int]:
    """``1,3,416,416`` -> [1, 3, 416, 416].

    Raises:
        UserError: it is no such list.
    """
    parts = text.replace("x", ",").split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise UserError(f"--input-shape: given {text!r}, accepted: four numbers N,3,H,W, for instance 1,3,416,416")
    return [int(part) for part in parts]


def onnx_shape(path: Path) -> list[int]:
    """Input shape of an ONNX detector, [N, 3, H, W].

    Raises:
        UserError: the file is damaged, or the shape is not fixed.
    """
    from components.core.onnx_files import load_onnx

    inputs = load_onnx(path).graph.input
    dims = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(dims) == 3:  # torchvision's own exports take one image without the batch axis
        dims = [1, *dims]
    if len(dims) != 4 or not all(dims):
        raise UserError(f"{path}: its first input has no fixed shape [N, 3, H, W]; give --input-shape")
    return dims


@contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when all went well; nothing of it stays otherwise.

    Raises:
        UserError: `out` is a file, has something in it already, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} is there already; give a new or an empty folder")
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(staging(out.absolute(), replace=True))
        except OSError as error:
            raise UserError(f"--out: {out}: {error.strerror}; give a folder that can be written") from error
        yield folder


@contextmanager
def models_folder(model: Path, runtimes: Sequence[Runtime], shape: Sequence[int]) -> Iterator[Path]:
    """What `surgery` hands on, around one ONNX file: a variant a runtime."""
    from components.core.onnx_files import load_onnx, save_onnx

    loaded = load_onnx(model)
    with tempfile.TemporaryDirectory(prefix="hasten-") as temporary:
        folder = Path(temporary)
        save_onnx(loaded, folder / "model.onnx")
        variants = [
            Variant(id=f"surgery-{runtime}", runtime=runtime, techniques=[], file="model.onnx") for runtime in runtimes
        ]
        _manifest(shape, variants).write(folder)
        yield folder


@contextmanager
def bundle_folder(job: Job) -> Iterator[Path]:
    """What `fetch` makes of a job, in a temporary folder."""
    from components.fetch.run import run_fetch

    with tempfile.TemporaryDirectory(prefix="hasten-") as temporary:
        bundle = Path(temporary) / "bundle"
        run_fetch(job, bundle)
        yield bundle


@contextmanager
def data_folder(annotations: Path, images: Path) -> Iterator[Path]:
    """A bundle without a model: one COCO split, checked and linked as both `train` and `test`.

    Raises:
        UserError: the annotations or the images cannot be used.
    """
    from components.fetch.coco import check_coco, check_image_sizes, file_names, normalized, read_coco
    from components.fetch.lookup import Sources
    from components.fetch.run import possible_sizes

    sources = Sources()
    found = sources.file("--annotations", str(annotations), "a COCO JSON file")
    document = read_coco(sources.read(found, "reading"), f"--annotations: {annotations}")
    present = sources.folder("--images", str(images), file_names(document))
    check_coco(document, present).raise_errors(f"--annotations: {annotations}")
    sizes = {name: possible_sizes(images / name) for name in file_names(document)}
    check_image_sizes(document, sizes).raise_errors(f"--annotations: {annotations}")
    with tempfile.TemporaryDirectory(prefix="hasten-") as temporary:
        for split in ("train", "test"):
            folder = Path(temporary) / "data" / split
            folder.mkdir(parents=True)
            (folder / "annotations.json").write_text(json.dumps(normalized(document, sizes)))
            (folder / "images").symlink_to(images.absolute())
        yield Path(temporary)


def on_models(
    model: Path, runtimes: Sequence[Runtime], out: Path, shape: Sequence[int], work: Callable[[Path, Path], Manifest]
) -> Manifest:
    """Runs `work(models folder, out folder)` on one ONNX file."""
    with models_folder(model, runtimes, shape) as models, output_folder(out) as folder:
        return work(models, folder)


def compare(
    models: Sequence[str],
    annotations: Path,
    images: Path,
    shape: Sequence[int] | None,
    out: Path,
    rounds: int,
    threads: int | None,
    device: str = "cpu",
) -> Leaderboard:
    """Measures model files side by side; the first one is the baseline.

    Args:
        models: paths, each with ``@runtime`` behind it where the suffix does not say which one is meant.
        annotations: COCO file of the images that accuracy is measured on.
        images: folder of the images.
        shape: input shape; default: that of the first ONNX file.
        out: folder for leaderboard.json, measurement.json, detections and logs.
        rounds: how many, each alternating between all models.
        threads: CPU threads; None: all cores.
        device: `cpu` or `cuda[:N]`.

    Raises:
        UserError: a file cannot be used.
        StepError: the baseline cannot be measured.
    """
    from components.benchmark.run import run_benchmark

    given = [_split_runtime(model, device) for model in models]
    first_onnx = next((path for path, _ in given if path.suffix == ".onnx"), None)
    shape = shape or _shape([path for path, _ in given])
    job = make_job(
        list(dict.fromkeys(runtime for _, runtime in given)),
        shape,
        {"onnx": str(first_onnx or given[0][0])},
        annotations,
        images,
        target={"threads": threads, "device": device},
        budget={"rounds": rounds},
    )
    with (
        tempfile.TemporaryDirectory(prefix="hasten-") as temporary,
        data_folder(annotations, images) as bundle,
        output_folder(out) as folder,
    ):
        exported = Path(temporary)
        variants = [_placed(number, path, runtime, exported, device) for number, (path, runtime) in enumerate(given)]
        _manifest(shape, variants).write(exported)
        board = run_benchmark(job, bundle, exported, None, "baseline", None, folder, out_uri=str(out.absolute()))
        rows = []
        for row in board.candidates:
            path = given[row.details["given"]][0].absolute()
            rows.append(row.model_copy(update={"uri": str(path.parent), "file": path.name}))
        board = board.model_copy(update={"candidates": rows})
        (folder / "leaderboard.json").write_text(board.model_dump_json(indent=2))
    return board


def _shape(paths: Sequence[Path]) -> list[int]:
    """The input shape that the first file says that says one."""
    for path in paths:
        if path.suffix == ".onnx":
            return onnx_shape(path)
        if path.name == RUN_PLAN:
            return _plan_shape(path)
    raise UserError("--input-shape: needed where no .onnx file says it, for instance 1,3,416,416")


def _split_runtime(text: str, device: str) -> tuple[Path, Runtime]:
    name, _, runtime = text.rpartition("@") if "@" in text else (text, "", "")
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give .onnx, .xml or .engine files")
    if path.name == RUN_PLAN:
        from components.core.runtimes.plan import plan_runtime, read_plan

        plan = read_plan(path)
        if not runtime:
            return path, plan_runtime(plan, path.parent, device)
        return path, parse_runtimes(runtime, [plan.target, Runtime.ONNXRUNTIME])[0]
    if runtime:
        return path, parse_runtimes(runtime, list(_RUNTIME_OF.values()))[0]
    if path.suffix not in _RUNTIME_OF:
        accepted = f"{', '.join(_RUNTIME_OF)}, or a {RUN_PLAN}"
        raise UserError(f"{path}: given {path.suffix or 'no suffix'}, accepted: {accepted}")
    return path, _RUNTIME_OF[path.suffix]


def _plan_shape(path: Path) -> list[int]:
    from components.core.runtimes.plan import read_plan

    inputs = read_plan(path).inputs
    dims = [size for size in (inputs[0].shape or []) if isinstance(size, int)] if inputs else []
    dims = [1, *dims] if len(dims) == 3 else dims
    if len(dims) != 4:
        raise UserError(f"{path}: its first input has no fixed shape [N, 3, H, W]; give --input-shape")
    return dims


def _placed(number: int, path: Path, runtime: Runtime, folder: Path, device: str) -> Variant:
    """Links a model and what belongs to it into a folder: OpenVINO's weights, external data, the parts of a plan."""
    name = f"{number}-{path.stem}"
    place = folder / name
    place.mkdir(parents=True)
    for neighbour in path.absolute().parent.glob(f"{path.stem}.*"):
        (place / neighbour.name).symlink_to(neighbour)
    reason = ""
    if path.name == RUN_PLAN:
        from components.core.runtimes.plan import read_plan, where_it_runs

        plan = read_plan(path)
        for part_file in plan.files():
            (place / part_file).symlink_to(path.absolute().parent / part_file)
        reason = where_it_runs(plan, path.parent, device if runtime in _ENGINES else "cpu")
    details: dict[str, Any] = {"given": number} | ({"baseline": True} if number == 0 else {})
    label = path.absolute().parent.name if path.stem == "model" or path.name == RUN_PLAN else path.stem
    label = label if str(runtime) in label else f"{label}-{runtime}"
    file = f"{name}/{path.name}"
    return Variant(id=f"{number}-{label}", runtime=runtime, techniques=[], file=file, details=details, reason=reason)


def _manifest(shape: Sequence[int], variants: list[Variant]) -> Manifest:
    return Manifest.model_validate(
        {"task": Task.DETECTION, "input_shape": list(shape), "variants": [one.model_dump() for one in variants]}
    )
