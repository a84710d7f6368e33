"""Builds an engine of every variant that is meant for TensorRT, and passes the others on."""

import shutil
from pathlib import Path

from components.core.contracts.job import Job
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.files import write_json_atomic
from components.core.stepping import progress
from components.engine.build import MODULES, BuildError, build_engine, missing_module

ENGINE = "model.engine"


def run_engine(job: Job, models: Path, out: Path) -> Manifest:
    """Builds the engines of `models`.

    Args:
        job: the job; `target.compute_capabilities` are the GPUs to build for.
        models: a rung's folder; variants for `tensorrt` and `tensorrt-rtx` are ONNX files.
        out: gets a folder a variant: ``model.engine`` with ``engine_card.json`` beside it, or a copy of what came in.

    Returns:
        The manifest. A variant without an engine is failed or skipped, with the reason.
    """
    source = Manifest.read(models)
    variants = []
    for done, given in enumerate(source.variants):
        if given.runtime in MODULES and given.status is Status.OK and given.file:
            progress(f"building the engine of {given.id}", done, len(source.variants))
            variants.append(_build(job, given, models, out))
        else:
            variants.append(_pass_on(given, models, out))
    manifest = source.model_copy(update={"variants": variants})
    manifest.write(out)
    return manifest


def _build(job: Job, given: Variant, models: Path, out: Path) -> Variant:
    missing = missing_module(given.runtime)
    if missing:
        return given.model_copy(update={"status": Status.SKIPPED, "reason": missing, "file": None})
    file = f"{given.id}/{ENGINE}"
    try:
        card = build_engine(given.runtime, models / str(given.file), out / file, list(job.target.compute_capabilities))
    except BuildError as error:
        reason = f"no engine: {error}"
        return given.model_copy(update={"status": Status.FAILED, "reason": reason, "file": None})
    write_json_atomic(out / given.id / "engine_card.json", card)
    # The ONNX file stays beside the engine, which runs only on the GPUs and the version that it was built for.
    shutil.copyfile(models / str(given.file), out / given.id / "model.onnx")
    return given.model_copy(update={"file": file, "details": given.details | {"engine": card}})


def _pass_on(given: Variant, models: Path, out: Path) -> Variant:
    """Copies the model file; OpenVINO's weights lie beside its `.xml` under the same name."""
    if given.file is None:
        return given
    source = models / given.file
    target = out / given.id / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in source.parent.glob(f"{source.stem}.*"):
        shutil.copyfile(path, target.parent / path.name)
    return given.model_copy(update={"file": f"{given.id}/{source.name}"})
