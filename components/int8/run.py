"""Rung 1: post-training INT8 quantization of every model that surgery handed on, each as its runtime wants it."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import StepError
from components.core.files import write_json_atomic
from components.core.machine import cpu_flags
from components.core.precision import has_int8_dot_product, has_native_bfloat16
from components.core.stepping import progress
from components.int8.accuracy_control import Control, control_accuracy
from components.int8.calibration import CalibrationSet, read_calibration_set
from components.int8.control_split import ControlSplit, measure_accuracy, read_control_split
from components.int8.sensitivity import Blame

_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
_RANKING = 0.3
"""Part of the control's time that the ranking may take."""
_ONE_PASS = 0.1
"""Part of the control's time that one look at the images may take; where all take longer, fewer are looked at."""


_SHARE = 0.5
"""Part of the allowed drop that is aimed at: on other images, those of the test split, the drop is another one."""


class Backend(Protocol):
    """One FP32 model and its INT8 forms for one runtime."""

    suffix: str
    """Of the files that it writes."""

    def calibrate(self, seconds: float) -> dict[str, Any]:
        """Chooses the ranges; what was tried, for the card."""

    def rank(self, seconds: float) -> list[Blame]:
        """The quantized nodes, the most harmful first."""

    def write(self, out: Path, restored: Collection[str] = ()) -> dict[str, Any]:
        """Writes the INT8 file with these nodes in floating point; facts for the card."""


def run_int8(job: Job, surgered: Path, bundle: Path, out: Path) -> Manifest:
    """Quantizes each variant of `surgered` for its own runtime.

    Args:
        job: the job.
        surgered: what `surgery` made.
        bundle: what `fetch` made; calibration and control samples come from its training split.
        out: gets a folder a variant and the manifest. A variant that cannot be quantized is kept with the reason.

    Raises:
        UserError: there is nothing to calibrate with.
    """
    calibration = read_calibration_set(job, bundle)
    for warning in calibration.warnings:
        progress(warning)
    controlled = job.goal.max_accuracy_drop < 1 and job.budget.control_images > 0
    control = read_control_split(job, bundle, calibration.names) if controlled else None
    source = Manifest.read(surgered)
    variants: list[Variant] = []
    for done, given in enumerate(source.variants):
        progress(f"quantizing {given.id}", done, len(source.variants))
        if given.runtime is job.target.runtimes[0] and given.runtime not in _ENGINES:
            variants.append(_keep(given, surgered, out))
        variants.extend(_quantize(job, given, surgered, out, calibration, control))
    details = {one.id: one.details["int8"] for one in variants if "int8" in one.details}
    write_json_atomic(out / "int8_card.json", {"calibration": calibration.card(), "models": details})
    manifest = source.model_copy(update={"variants": variants})
    manifest.write(out)
    return manifest


def _keep(given: Variant, surgered: Path, out: Path) -> Variant:
    """The FP32 model beside its INT8 form: what the re-expression alone gives is a row of its own."""
    if given.status is not Status.OK or given.file is None:
        return given
    file = f"{given.id}/{Path(given.file).name}"
    (out / given.id).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(surgered / given.file, out / file)
    return given.model_copy(update={"file": file})


def _quantize(
    job: Job, given: Variant, surgered: Path, out: Path, calibration: CalibrationSet, control: ControlSplit | None
) -> list[Variant]:
    """The variant's rows: INT8, and INT8 with layers restored where the goal asks for it."""
    name = f"int8-{given.id.removeprefix('surgery-')}"
    techniques = [*given.techniques, "int8"]
    changed: dict[str, Any] = {"id": name, "techniques": techniques, "reference": False}
    if given.status is not Status.OK or given.file is None:
        return [given.model_copy(update=changed)]
    make = _BACKENDS.get(given.runtime)
    if make is None:
        reason = f"no INT8 path for the runtime {given.runtime} yet"
        return [given.model_copy(update=changed | {"file": None, "status": Status.SKIPPED, "reason": reason})]
    source = surgered / given.file
    try:
        backend = make(source, calibration)
        chosen = backend.calibrate(job.budget.calibration_time)
        file = f"{name}/model{backend.suffix}"
        (out / name).mkdir(parents=True, exist_ok=True)
        facts = backend.write(out / file) | {"calibration_images": len(calibration.names), "calibrator": chosen}
    except Exception as error:  # whatever a quantization library raises is that candidate's reason, not the run's end
        words = " ".join(str(error).split())[:300]
        reason = f"quantization failed: {type(error).__name__}: {words}"
        return [given.model_copy(update=changed | {"file": None, "status": Status.FAILED, "reason": reason})]
    if calibration.warnings:
        facts["warnings"] = calibration.warnings
    accurate = f"int8-accurate-{given.id.removeprefix('surgery-')}"
    found: Control | None = None
    written: dict[str, Any] = {}
    try:
        if control is not None:
            found, images, written = _control(job, given.runtime, backend, source, out / file, control, out / accurate)
            facts["accuracy"] = found.card() | images
        else:
            facts["accuracy"] = {"note": "not controlled: no labelled images, or the goal allows any drop"}
    except Exception as error:  # the INT8 model is there; that it could not be judged is worth knowing, no more
        facts["accuracy"] = {"note": f"not controlled: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    made = given.model_copy(update=changed | {"file": file, "details": given.details | {"int8": facts}})
    rows = [made]
    if found is not None and found.restored:
        made_accurate = {
            "id": accurate,
            "file": f"{accurate}/model{backend.suffix}",
            "techniques": [*techniques, "accuracy control"],
            "reason": _restored_words(found, str(job.goal.metric)),
            "details": given.details | {"int8": facts | written},
        }
        rows.append(made.model_copy(update=made_accurate))
    return [one for row in rows for one in (row, *_in_bfloat16(row))]


def _in_bfloat16(row: Variant) -> list[Variant]:
    """The same file; only what stays out of INT8 is computed in bfloat16, where the CPU does that fast."""
    if row.runtime is not Runtime.OPENVINO or not has_native_bfloat16(cpu_flags()):
        return []
    mixed = {
        "id": row.id.replace("int8-", "int8-bf16-", 1),
        "options": {"INFERENCE_PRECISION_HINT": "bf16"},
        "techniques": [*row.techniques, "bf16"],
    }
    return [row.model_copy(update=mixed)]


def _control(
    job: Job, runtime: Runtime, backend: Backend, source: Path, file: Path, control: ControlSplit, folder: Path
) -> tuple[Control, dict[str, Any], dict[str, Any]]:
    """Compares INT8 with FP32 on the control images, and restores layers where it loses more than the goal allows.

    The model with layers restored is in `folder` afterwards, if there is one.

    Returns:
        What was done, which images were looked at, and the facts of the file in `folder`.
    """
    seconds = job.budget.control_time
    progress(f"accuracy of FP32 in {runtime} on training images")
    exact = measure_accuracy(job, runtime, source, control, seconds * _ONE_PASS)
    looked_at = exact.control
    images = {"images": len(looked_at.split.samples), "seen_in_calibration": looked_at.seen, "split": "train"}
    progress(f"accuracy of INT8 in {runtime} on training images")
    rounded = measure_accuracy(job, runtime, file, looked_at).accuracy
    allowed = _SHARE * job.goal.max_accuracy_drop
    if exact.accuracy - rounded <= allowed:
        return Control(exact.accuracy, rounded, exact.accuracy - allowed, rounded), images, {}
    ranking = backend.rank(seconds * _RANKING)
    target = folder / f"model{backend.suffix}"
    folder.mkdir(parents=True, exist_ok=True)

    def measure(restored: Collection[str]) -> float:
        backend.write(target, restored)
        try:
            return measure_accuracy(job, runtime, target, looked_at).accuracy
        except StepError:  # NaN, say: a model that cannot be used is worth nothing
            return 0.0

    found = control_accuracy(ranking, measure, exact.accuracy, rounded, allowed, seconds * (1 - _RANKING))
    if found.restored:
        return found, images, backend.write(target, [one.unit for one in found.restored])
    shutil.rmtree(folder)
    return found, images, {}


def _restored_words(found: Control, metric: str) -> str:
    """One line for the row: what was restored and what it brought."""
    names = ", ".join(one.unit for one in found.restored[:5])
    more = f" and {len(found.restored) - 5} more" if len(found.restored) > 5 else ""
    outcome = "" if found.recovered else f"; still short of the {found.wanted:.4f} that is aimed at"
    return (
        f"{len(found.restored)} layers back in floating point ({names}{more}): {metric} on training images "
        f"{found.int8:.4f} -> {found.reached:.4f}, FP32 {found.fp32:.4f}{outcome}"
    )


def _for_openvino(model: Path, calibration: CalibrationSet) -> Backend:
    from components.int8.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(model, calibration)


def _for_onnx(runtime: Runtime) -> Callable[[Path, CalibrationSet], Backend]:
    def make(model: Path, calibration: CalibrationSet) -> Backend:
        from components.int8.onnx_backend import OnnxBackend

        return OnnxBackend(model, runtime, calibration, vnni=has_int8_dot_product(cpu_flags()))

    return make


_BACKENDS: dict[Runtime, Callable[[Path, CalibrationSet], Backend]] = {
    Runtime.OPENVINO: _for_openvino,
    Runtime.ONNXRUNTIME: _for_onnx(Runtime.ONNXRUNTIME),
    Runtime.TENSORRT: _for_onnx(Runtime.TENSORRT),
    Runtime.TENSORRT_RTX: _for_onnx(Runtime.TENSORRT_RTX),
}
