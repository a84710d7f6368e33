"""Rung 2: half precision, where the target computes in it, with the detector's tail left in FP32."""

from pathlib import Path
from typing import Any

import numpy as np

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.machine import cpu_flags
from components.core.precision import has_native_bfloat16
from components.core.stepping import progress
from components.core.tasks.adapter import ANNOTATIONS, Inputs, in_batches, read_split, task_adapter

_RANGE_SAMPLES = 16
"""Samples that tell which values FP16 could not hold."""


def run_fp16(job: Job, surgered: Path, bundle: Path, out: Path) -> Manifest:
    """Converts each variant of `surgered` for its own runtime.

    Args:
        job: the job.
        surgered: what `surgery` made.
        bundle: what `fetch` made; a few samples of its training split, where it has them, show how large values get.
        out: gets a folder a variant and the manifest. A variant that cannot be converted is kept with the reason.
    """
    source = Manifest.read(surgered)
    variants = []
    batches = _batches(job, bundle)
    for done, given in enumerate(source.variants):
        progress(f"converting {given.id}", done, len(source.variants))
        variants.append(_convert(given, surgered, out, batches))
    manifest = source.model_copy(update={"variants": variants})
    manifest.write(out)
    return manifest


def _batches(job: Job, bundle: Path) -> list[Inputs]:
    """A few training samples, drawn with the job's seed; none where the bundle has no data."""
    if not (bundle / "data" / "train" / ANNOTATIONS).is_file():
        return []
    adapter = task_adapter(job, bundle)
    samples = read_split(adapter, bundle, "train").samples
    order = np.random.default_rng(job.budget.seed).permutation(len(samples))[:_RANGE_SAMPLES]
    chosen = [adapter.encode(samples[int(i)].load())[0] for i in sorted(order)]
    return in_batches(chosen, job.target.input_shape[0])


def _convert(given: Variant, surgered: Path, out: Path, batches: list[Inputs]) -> Variant:
    name = f"fp16-{given.id.removeprefix('surgery-')}"
    changed: dict[str, Any] = {"id": name, "techniques": [*given.techniques, "fp16"], "reference": False}
    if given.status is not Status.OK or given.file is None:
        return given.model_copy(update=changed)
    if given.runtime is Runtime.ONNXRUNTIME:
        reason = "ONNX Runtime's CPU kernels compute FP16 by casting to FP32 and back: never faster"
        return given.model_copy(update=changed | {"file": None, "status": Status.SKIPPED, "reason": reason})
    (out / name).mkdir(parents=True, exist_ok=True)
    try:
        if given.runtime is Runtime.OPENVINO:
            changed |= _for_openvino(given, surgered, out, name)
        else:
            changed |= _for_tensorrt(given, surgered, out, name, batches)
    except Exception as error:  # a library's failure is that candidate's reason, not the run's end
        words = " ".join(str(error).split())[:300]
        reason = f"conversion failed: {type(error).__name__}: {words}"
        changed |= {"file": None, "status": Status.FAILED, "reason": reason}
    return given.model_copy(update=changed)


def _for_openvino(given: Variant, surgered: Path, out: Path, name: str) -> dict[str, Any]:
    import openvino

    file = f"{name}/model.xml"
    model = openvino.Core().read_model(surgered / str(given.file))
    openvino.save_model(model, out / file, compress_to_fp16=True)
    if has_native_bfloat16(cpu_flags()):
        techniques = [*given.techniques, "bf16"]
        renamed = name.replace("fp16-", "bf16-", 1)
        return {
            "id": renamed,
            "file": file,
            "techniques": techniques,
            "options": {"INFERENCE_PRECISION_HINT": "bf16"},
            "reason": "FP16 weights, arithmetic in bfloat16",
        }
    reason = "half the size; this CPU has no half-precision arithmetic (AVX-512 BF16, AMX), so it computes in FP32"
    return {"file": file, "reason": reason}


def _for_tensorrt(given: Variant, surgered: Path, out: Path, name: str, batches: list[Inputs]) -> dict[str, Any]:
    from components.fp16.onnx_half import convert_to_half

    file = f"{name}/model.onnx"
    facts = convert_to_half(surgered / str(given.file), out / file, batches)
    kept = facts["kept_for_range"]
    reason = f"{len(kept)} layers stay in FP32 for their range: {', '.join(kept[:5])}" if kept else given.reason
    return {"file": file, "details": given.details | {"fp16": facts}, "reason": reason}
