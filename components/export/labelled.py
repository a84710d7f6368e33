"""Exports a classifier of images, texts or recordings; its graph goes to surgery as it is: no tail to re-express."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import SOURCES, Status, Variant
from components.core.errors import StepError, UserError
from components.core.feeds import feed, size_of
from components.core.models import bundled, load_torch_model
from components.core.stepping import progress
from components.core.tasks.adapter import Dataset, Inputs, TaskAdapter, in_batches, task_adapter
from components.core.tasks.labelled import Logits
from components.export.labelled_parity import compare_logits

if TYPE_CHECKING:
    import torch

STOCK = "stock.onnx"
OPSETS = {False: 17, True: 18}
"""By exporter: tracing, and torch.export, which is tried where tracing fails."""


def export_labelled(
    job: Job, bundle: Path, split: Dataset, samples: int, out: Path
) -> tuple[list[Variant], list[Variant], dict[str, Any]]:
    """Writes ``stock.onnx``, also into ``sources/``.

    Args:
        job: the job.
        bundle: what `fetch` made.
        split: its training split.
        samples: how many of it the export is compared on, at least.
        out: folder for the files.

    Returns:
        The untouched model's variants, the baseline first; the models that surgery starts from; the card.

    Raises:
        UserError: the model cannot be loaded, or is no classifier of this data.
    """
    adapter = task_adapter(job, bundle)
    count = job.target.input_shape[0]
    chosen = split.samples[: -(-samples // count) * count]
    batches = in_batches([adapter.encode(sample.load())[0] for sample in chosen], count)
    classes, model = len(split.labels), bundle / "model"
    if job.model.onnx:
        return _given(bundled(job.model.onnx, model), adapter, classes, out, batches)
    module = load_torch_model(job.model, model)
    expected = _eager(module, adapter, batches)
    _check_classes(expected, classes)
    progress("exporting the untouched model")
    parity = _exported(module, adapter, expected, out / STOCK, batches)
    if parity["agrees"]:
        shutil.copyfile(out / STOCK, out / SOURCES / STOCK)
    source = Variant(
        id="stock",
        runtime=Runtime.ONNXRUNTIME,
        techniques=[],
        status=Status.OK if parity["agrees"] else Status.FAILED,
        reason="" if parity["agrees"] else str(parity["error"]),
        file=STOCK if parity["agrees"] else None,
        details={"parity": parity},
    )
    baseline = Variant(id="eager", runtime=Runtime.TORCH, techniques=[], details={"baseline": True})
    yardsticks = [_yardstick(source, runtime) for runtime in (Runtime.ONNXRUNTIME, Runtime.OPENVINO)]
    return [baseline, *yardsticks], [source], {"parity": {STOCK: parity}}


def write_labelled_onnx(job: Job, module: "torch.nn.Module", adapter: TaskAdapter, split: Dataset, path: Path) -> None:
    """Writes a classifier as ONNX without comparing it with anything: for one that is not trained.

    Raises:
        StepError: it does not export.
    """
    count = job.target.input_shape[0]
    (batch,) = in_batches([adapter.encode(sample.load())[0] for sample in split.samples[:count]], count)
    errors = []
    for newer in _exporters(module):
        try:
            _write(module, adapter, batch, path, newer=newer)
        except StepError as error:
            path.unlink(missing_ok=True)
            errors.append(str(error))
        else:
            return
    raise StepError("; ".join(dict.fromkeys(errors)))


def _exporters(module: "torch.nn.Module") -> tuple[bool, ...]:
    """Whether to use the newer exporter, in the order of trying; a program of torch.export is nothing for the other."""
    return (True,) if hasattr(module, "graph") else (False, True)


def _yardstick(source: Variant, runtime: Runtime) -> Variant:
    """The untouched model in an FP32 runtime: what a user gets by changing the runtime alone."""
    return source.model_copy(update={"id": f"fp32-{runtime}", "runtime": runtime, "reference": True})


def _eager(module: "torch.nn.Module", adapter: TaskAdapter, batches: Sequence[Inputs]) -> list[Logits]:
    from components.core.runtimes.torch_eager import TorchLogitsSession

    session = TorchLogitsSession(module, "cpu", adapter)
    try:
        found = [session.run(batch) for batch in batches]
    except StepError as error:
        raise UserError(f"the model is no classifier that hasten can use: {error}") from error
    return [logits for group in found for logits in group]


def _check_classes(logits: Sequence[Logits], classes: int) -> None:
    outputs = len(logits[0])
    if outputs != classes:
        raise UserError(
            f"the model has {outputs} outputs and data.train {classes} classes; name all of the model's classes in "
            "data.labels, in the order of its outputs"
        )


def _exported(
    module: "torch.nn.Module", adapter: TaskAdapter, expected: list[Logits], path: Path, batches: Sequence[Inputs]
) -> dict[str, Any]:
    """Exports by one exporter, else by the other; the parity, or the errors of both."""
    errors = []
    for newer in _exporters(module):
        try:
            _write(module, adapter, batches[0], path, newer=newer)
            parity = compare_logits(expected, _run_onnx(path, adapter, batches))
        except StepError as error:
            errors.append(str(error))
        except Exception as error:  # ONNX Runtime raises errors of its own kinds, which share no base class
            errors.append(f"ONNX Runtime: {str(error).splitlines()[0]}")
        else:
            if parity.agrees:
                return parity.summary() | {"exporter": "torch.export" if newer else "tracing"}
            errors.append(parity.words)
        path.unlink(missing_ok=True)
    return {"agrees": False, "error": "; ".join(dict.fromkeys(errors))}


def _write(module: "torch.nn.Module", adapter: TaskAdapter, batch: Inputs, path: Path, *, newer: bool) -> None:
    import torch

    from components.core.tasks.torch_calls import inputs_taken
    from components.export.onnx_export import quiet

    taken = inputs_taken(module, adapter.inputs)
    example = tuple(torch.from_numpy(batch[name]) for name in taken)
    try:
        with torch.inference_mode(), quiet():
            torch.onnx.export(
                _LogitsModule.around(module, taken),
                example,
                str(path),
                dynamo=newer,
                external_data=False,
                opset_version=OPSETS[newer],
                input_names=list(taken),
                output_names=list(adapter.outputs),
            )
    except Exception as error:
        words = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise StepError(f"torch.onnx.export failed: {words[0]}") from error


class _LogitsModule:
    """Makes a module whose inputs are in order and whose output is the logits alone."""

    @staticmethod
    def around(module: "torch.nn.Module", taken: tuple[str, ...]) -> "torch.nn.Module":
        import torch

        from components.core.tasks.torch_calls import call

        class Wrapped(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = module

            def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
                return call(self.inner, dict(zip(taken, arrays, strict=True)), taken)

        return Wrapped().eval() if not hasattr(module, "graph") else Wrapped()


def _run_onnx(path: Path, adapter: TaskAdapter, batches: Sequence[Inputs]) -> list[Logits]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found = [adapter.predictions(size_of(batch), session.run(None, feed(batch, names))[:1]) for batch in batches]
    return [logits for group in found for logits in group]


def _given(
    given: Path, adapter: TaskAdapter, classes: int, out: Path, batches: Sequence[Inputs]
) -> tuple[list[Variant], list[Variant], dict[str, Any]]:
    from components.core.onnx_files import load_onnx, save_onnx

    model = load_onnx(given)
    save_onnx(model, out / STOCK)
    save_onnx(model, out / SOURCES / STOCK)
    try:
        found = _run_onnx(out / STOCK, adapter, batches)
    except StepError as error:
        raise UserError(f"{given.name}: {error}") from None
    except Exception as error:
        raise UserError(f"{given.name} does not run in ONNX Runtime: {str(error).splitlines()[0]}") from None
    _check_classes(found, classes)
    baseline = Variant(
        id="as-given", runtime=Runtime.ONNXRUNTIME, techniques=[], file=STOCK, details={"baseline": True}
    )
    openvino = Variant(id="fp32-openvino", runtime=Runtime.OPENVINO, techniques=[], file=STOCK, reference=True)
    source = Variant(id="stock", runtime=Runtime.ONNXRUNTIME, techniques=[], file=STOCK)
    return [baseline, openvino], [source], {"given": {"samples": len(found)}}
