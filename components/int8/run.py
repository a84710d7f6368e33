"""Rung 1: post-training INT8 quantization of every model that surgery handed on, each as its runtime wants it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.files import write_json_atomic
from components.core.machine import cpu_flags
from components.core.precision import has_int8_dot_product, has_native_bfloat16
from components.core.stepping import progress
from components.int8.calibration import CalibrationSet, read_calibration_set

_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
Quantizer = Callable[[Path, Path, CalibrationSet], dict[str, Any]]


def run_int8(job: Job, surgered: Path, bundle: Path, out: Path) -> Manifest:
    """Quantizes each variant of `surgered` for its own runtime.

    Args:
        job: the job.
        surgered: what `surgery` made.
        bundle: what `fetch` made; calibration images come from its training split.
        out: gets a folder a variant and the manifest. A variant that cannot be quantized is kept with the reason.

    Raises:
        UserError: there is nothing to calibrate with.
    """
    calibration = read_calibration_set(job, bundle)
    source = Manifest.read(surgered)
    variants: list[Variant] = []
    for done, given in enumerate(source.variants):
        progress(f"quantizing {given.id}", done, len(source.variants))
        if given.runtime is job.target.runtimes[0] and given.runtime not in _ENGINES:
            variants.append(_keep(given, surgered, out))
        variants.extend(_quantize(given, surgered, out, calibration))
    write_json_atomic(out / "int8_card.json", {"calibration": calibration.card()})
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


def _quantize(given: Variant, surgered: Path, out: Path, calibration: CalibrationSet) -> list[Variant]:
    name = f"int8-{given.id.removeprefix('surgery-')}"
    techniques = [*given.techniques, "int8"]
    changed: dict[str, Any] = {"id": name, "techniques": techniques, "reference": False}
    if given.status is not Status.OK or given.file is None:
        return [given.model_copy(update=changed)]
    quantizer = _QUANTIZERS.get(given.runtime)
    if quantizer is None:
        reason = f"no INT8 path for the runtime {given.runtime} yet"
        return [given.model_copy(update=changed | {"file": None, "status": Status.SKIPPED, "reason": reason})]
    suffix = ".xml" if given.runtime is Runtime.OPENVINO else ".onnx"
    file = f"{name}/model{suffix}"
    (out / name).mkdir(parents=True, exist_ok=True)
    try:
        facts = quantizer(surgered / given.file, out / file, calibration)
    except Exception as error:  # whatever a quantization library raises is that candidate's reason, not the run's end
        words = " ".join(str(error).split())[:300]
        reason = f"quantization failed: {type(error).__name__}: {words}"
        return [given.model_copy(update=changed | {"file": None, "status": Status.FAILED, "reason": reason})]
    facts["calibration_images"] = len(calibration.names)
    details = given.details | {"int8": facts}
    quantized = given.model_copy(update=changed | {"file": file, "details": details})
    if given.runtime is Runtime.OPENVINO and has_native_bfloat16(cpu_flags()):
        # The same file; only what stays out of INT8 is computed in bfloat16.
        mixed = {"id": name.replace("int8-", "int8-bf16-", 1), "options": {"INFERENCE_PRECISION_HINT": "bf16"}}
        return [quantized, quantized.model_copy(update=mixed | {"techniques": [*techniques, "bf16"]})]
    return [quantized]


def _for_openvino(model: Path, file: Path, calibration: CalibrationSet) -> dict[str, Any]:
    from components.int8.openvino_nncf import quantize_openvino

    return quantize_openvino(model, file, calibration.batches)


def _for_onnx(runtime: Runtime) -> Quantizer:
    def quantize(model: Path, file: Path, calibration: CalibrationSet) -> dict[str, Any]:
        from components.int8.onnx_qdq import quantize_onnx

        vnni = has_int8_dot_product(cpu_flags())
        return quantize_onnx(model, file, runtime, calibration.batches, vnni=vnni)

    return quantize


_QUANTIZERS: dict[Runtime, Quantizer] = {
    Runtime.OPENVINO: _for_openvino,
    Runtime.ONNXRUNTIME: _for_onnx(Runtime.ONNXRUNTIME),
    Runtime.TENSORRT: _for_onnx(Runtime.TENSORRT),
    Runtime.TENSORRT_RTX: _for_onnx(Runtime.TENSORRT_RTX),
}
