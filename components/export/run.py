"""Exports the user's model: as it is, for the yardsticks, and re-expressed, for everything that follows."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.contracts.job import Job, Runtime, Task
from components.core.contracts.variant import SOURCES, Manifest, Status, Variant
from components.core.errors import StepError, UserError
from components.core.files import write_json_atomic
from components.core.models import bundled, load_torch_model
from components.core.stepping import progress
from components.core.tasks.adapter import read_split, task_adapter
from components.core.tasks.detection import Detections, DetectionSplit, fit, in_batches, per_image
from components.export.labelled import export_labelled, write_labelled_onnx

if TYPE_CHECKING:
    import torch

STOCK = "stock.onnx"
CANONICAL = "canonical.onnx"
TRIMMED = "trimmed.onnx"
PARITY_IMAGES = 4
PARITY_SAMPLES = 16
"""Of a classifier, which says one thing a sample and not many."""

Batch = Any
"""float32 array [N, 3, H, W] in 0..1."""


def run_export(job: Job, bundle: Path, out: Path) -> Manifest:
    """Exports the job's model.

    Args:
        job: the job; ``job.target.input_shape`` fixes the shape.
        bundle: what `fetch` made.
        out: gets ``stock.onnx`` and a manifest of the untouched model's variants, ``export_card.json``, and in
            ``sources/`` the models that surgery starts from, with a manifest of their own.

    Returns:
        The manifest of the untouched model; its first variant is the baseline.

    Raises:
        UserError: the model cannot be loaded, or needs what hasten cannot do.
    """
    split = read_split(task_adapter(job, bundle), bundle, "train")
    (out / SOURCES).mkdir(parents=True, exist_ok=True)
    if job.task is Task.DETECTION:
        untouched, sources, card = _detector(job, bundle / "model", split, out)
    else:
        untouched, sources, card = export_labelled(job, bundle, split, PARITY_SAMPLES, out)
    write_json_atomic(out / "export_card.json", card)
    common = {"task": job.task, "input_shape": job.target.input_shape, "labels": split.labels}
    Manifest(**common, variants=sources).write(out / SOURCES)
    manifest = Manifest(**common, variants=untouched)
    manifest.write(out)
    return manifest


def export_untrained(job: Job, bundle: Path, out: Path) -> Manifest:
    """Exports what surgery starts from, and nothing that only a trained model has an answer to.

    There is no yardstick, no comparison with the eager model and no choice of candidate counts: random weights find
    nothing that could be compared.

    Args:
        job: the job; its model is a factory with weights.
        bundle: what `fetch` made, or a folder like it.
        out: gets ``sources/`` with the model and its manifest.

    Returns:
        The manifest of `sources/`.

    Raises:
        StepError: the model does not export.
        UserError: the model cannot be loaded.
    """
    split = read_split(task_adapter(job, bundle), bundle, "train")
    model = load_torch_model(job.model, bundle / "model")
    sources = out / SOURCES
    sources.mkdir(parents=True, exist_ok=True)
    if job.task is Task.DETECTION:
        source = _untrained_detector(job, model, split, sources)
    else:
        write_labelled_onnx(job, model, task_adapter(job, bundle), split, sources / STOCK)
        source = Variant(id="stock", runtime=Runtime.ONNXRUNTIME, techniques=[], file=STOCK)
    manifest = Manifest(task=job.task, input_shape=job.target.input_shape, labels=split.labels, variants=[source])
    manifest.write(sources)
    return manifest


def _untrained_detector(job: Job, model: "torch.nn.Module", split: DetectionSplit, sources: Path) -> Variant:
    import torch

    from components.export.canonical import canonical, unsupported
    from components.export.onnx_export import StockDetector, export_onnx

    count, _, height, width = job.target.input_shape
    images = [fit(image.load(), height, width)[0] for image in split.images[:count]]
    image = torch.from_numpy(in_batches(images, count)[0])
    if reason := unsupported(model):
        export_onnx(StockDetector(model), image, sources / STOCK, dynamic_detections=True)
        return Variant(id="stock", runtime=Runtime.ONNXRUNTIME, techniques=[], file=STOCK, reason=reason)
    export_onnx(canonical(model, height, width), image, sources / CANONICAL)
    return Variant(id="canonical", runtime=Runtime.ONNXRUNTIME, techniques=[], file=CANONICAL)


def _detector(
    job: Job, model: Path, split: DetectionSplit, out: Path
) -> tuple[list[Variant], list[Variant], dict[str, Any]]:
    count, _, height, width = job.target.input_shape
    images = split.images[: -(-PARITY_IMAGES // count) * count]
    batches = in_batches([fit(image.load(), height, width)[0] for image in images], count)
    if job.model.onnx:
        return _from_onnx(bundled(job.model.onnx, model), out, batches)
    if job.model.program:
        return _from_program(load_torch_model(job.model, model), out, batches)
    return _from_detector(load_torch_model(job.model, model), split, out, batches)


def _from_detector(
    model: "torch.nn.Module", split: DetectionSplit, out: Path, batches: list[Batch]
) -> tuple[list[Variant], list[Variant], dict[str, Any]]:
    import torch

    from components.export.canonical import unsupported
    from components.export.onnx_export import StockDetector, export_onnx

    stock = StockDetector(model)
    expected = _eager(stock, batches)
    image = torch.from_numpy(batches[0])
    progress("exporting the untouched model")
    parity = _checked(
        lambda path: export_onnx(stock, image, path, dynamic_detections=True), out / STOCK, expected, batches
    )
    baseline = Variant(id="eager", runtime=Runtime.TORCH, techniques=[], details={"baseline": True})
    untouched = [baseline, *_yardsticks(parity)]
    card: dict[str, Any] = {"parity": {STOCK: parity}}
    if reason := unsupported(model):
        sources = [_stock_as_source(out, parity, f"{reason}; its stock export is used as it is")]
    else:
        sources, facts = _rewritten(model, split, out / SOURCES, expected, batches)
        card["parity"] |= facts.pop("parity")
        card |= facts
    return untouched, sources, card


def _rewritten(
    model: Any, split: DetectionSplit, out: Path, expected: list[Detections], batches: list[Batch]
) -> tuple[list[Variant], dict[str, Any]]:
    import torch

    from components.export.candidate_counts import choose_counts
    from components.export.canonical import canonical
    from components.export.onnx_export import export_onnx

    height, width = batches[0].shape[2:]
    image = torch.from_numpy(batches[0])
    progress("re-expressing the detector with static shapes")
    detector = canonical(model, height, width)
    parity = _checked(lambda path: export_onnx(detector, image, path), out / CANONICAL, expected, batches)
    sources = [_source("canonical", CANONICAL, parity)]
    counts, trials = choose_counts(detector, split)
    facts = {
        "parity": {CANONICAL: parity},
        "candidate_counts": {"chosen": asdict(counts), "tried": [asdict(trial) for trial in trials]},
    }
    if counts != detector.counts:
        detector.counts = counts
        export_onnx(detector, image, out / TRIMMED)
        before, after = trials[0], next(trial for trial in trials if trial.counts == counts)
        reason = (
            f"{counts.proposals} candidate boxes instead of {before.counts.proposals}: "
            f"mAP50 on the training split {before.map50:.3f} -> {after.map50:.3f}"
        )
        trimmed = Variant(
            id="trimmed",
            runtime=Runtime.ONNXRUNTIME,
            techniques=["candidate-trim"],
            reason=reason,
            file=TRIMMED,
            details=facts["candidate_counts"],
        )
        sources.append(trimmed)
    return sources, facts


def _from_program(
    module: "torch.nn.Module", out: Path, batches: list[Batch]
) -> tuple[list[Variant], list[Variant], dict[str, Any]]:
    import torch

    from components.export.onnx_export import export_onnx

    expected = _eager(module, batches)
    image = torch.from_numpy(batches[0])
    parity = _checked(lambda path: export_onnx(module, image, path, program=True), out / STOCK, expected, batches)
    baseline = Variant(id="eager", runtime=Runtime.TORCH, techniques=[], details={"baseline": True})
    return [baseline, *_yardsticks(parity)], [_stock_as_source(out, parity)], {"parity": {STOCK: parity}}


def _from_onnx(given: Path, out: Path, batches: list[Batch]) -> tuple[list[Variant], list[Variant], dict[str, Any]]:
    from components.core.onnx_files import load_onnx, save_onnx
    from components.export.parity import run_onnx

    model = load_onnx(given)
    names = [output.name for output in model.graph.output]
    if len(names) != 3:
        raise UserError(
            f"{given.name} has {len(names)} outputs ({', '.join(names)}); a detector has three: "
            "boxes [N, 4] in input pixels, scores [N], labels [N], in this order"
        )
    save_onnx(model, out / STOCK)
    save_onnx(model, out / SOURCES / STOCK)
    try:
        found = run_onnx(out / STOCK, batches)
    except Exception as error:
        raise UserError(f"{given.name} does not run in ONNX Runtime: {str(error).splitlines()[0]}") from None
    baseline = Variant(
        id="as-given",
        runtime=Runtime.ONNXRUNTIME,
        techniques=[],
        file=STOCK,
        details={"baseline": True},
    )
    card = {"detections": [len(detections.scores) for detections in found]}
    openvino = Variant(id="fp32-openvino", runtime=Runtime.OPENVINO, techniques=[], file=STOCK, reference=True)
    return [baseline, openvino], [_source("stock", STOCK, card)], {"given": card}


def _checked(
    write: Callable[[Path], None], path: Path, expected: list[Detections], batches: list[Batch]
) -> dict[str, Any]:
    """Exports and compares; returns the parity, or the error, and removes a file that does not agree."""
    from components.export.parity import compare, run_onnx

    try:
        write(path)
        parity = compare(expected, run_onnx(path, batches))
    except StepError as error:
        return {"agrees": False, "error": str(error)}
    except Exception as error:  # ONNX Runtime raises errors of its own kinds, which share no base class
        path.unlink(missing_ok=True)
        return {"agrees": False, "error": f"ONNX Runtime: {str(error).splitlines()[0]}"}
    if not parity.agrees:
        path.unlink(missing_ok=True)
        words = f"{parity.matched} of {parity.detections} detections agree with the eager model"
        return parity.summary() | {"error": words}
    return parity.summary()


def _eager(module: "torch.nn.Module", batches: list[Batch]) -> list[Detections]:
    import torch

    with torch.inference_mode():
        found = [module(torch.from_numpy(batch)) for batch in batches]
    if not all(isinstance(outputs, tuple | list) and len(outputs) == 3 for outputs in found):
        raise UserError("the model does not return three outputs: boxes [N, 4], scores [N], labels [N]")
    groups = [
        per_image(len(batch), *(part.numpy() for part in outputs))
        for batch, outputs in zip(batches, found, strict=True)
    ]
    return [detections for group in groups for detections in group]


def _yardsticks(parity: dict[str, Any]) -> list[Variant]:
    """The untouched model in the FP32 runtimes: what a user gets by changing the runtime alone."""
    status = Status.OK if parity["agrees"] else Status.FAILED
    return [
        Variant(
            id=f"fp32-{runtime}",
            runtime=runtime,
            techniques=[],
            status=status,
            reason=str(parity.get("error", "")),
            file=STOCK if parity["agrees"] else None,
            reference=True,
            details={"parity": parity},
        )
        for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO)
    ]


def _stock_as_source(out: Path, parity: dict[str, Any], reason: str = "") -> Variant:
    if parity["agrees"]:
        shutil.copyfile(out / STOCK, out / SOURCES / STOCK)
    return _source("stock", STOCK, parity, reason)


def _source(name: str, file: str, parity: dict[str, Any], reason: str = "") -> Variant:
    agrees = parity.get("agrees", True)
    return Variant(
        id=name,
        runtime=Runtime.ONNXRUNTIME,
        techniques=[],
        status=Status.OK if agrees else Status.FAILED,
        reason=reason if agrees else str(parity["error"]),
        file=file if agrees else None,
        details={"parity": parity},
    )
