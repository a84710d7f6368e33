"""Builds an engine of every variant that is meant for TensorRT, and passes the others on."""

import shutil
from pathlib import Path

from components.core.contracts.job import Job
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.files import write_json_atomic
from components.core.stepping import progress
from components.core.tensorrt_tools.modules import MODULES, missing_module
from components.engine.build import TIME_LIMIT, BuildError, build_engine

ENGINE = "model.engine"
CARD = "engine_card.json"


def run_engine(job: Job, models: Path, out: Path, time_limit: float = TIME_LIMIT) -> Manifest:
    """Builds the engines of `models`.

    Args:
        job: the job; `target.compute_capabilities` are the GPUs to build for.
        models: a rung's folder; variants for `tensorrt` and `tensorrt-rtx` are ONNX files.
        out: gets a folder a variant: ``model.engine`` with ``engine_card.json`` and the ONNX file beside it, or a
        copy of
            what came in.
        time_limit: seconds for each build.

    Returns:
        The manifest. A variant without an engine is failed or skipped, with the reason.

    Raises:
        UserError: `target.compute_capabilities` names one that the builder does not know.
    """
    source = Manifest.read(models)
    variants = []
    for done, given in enumerate(source.variants):
        if given.runtime in MODULES and given.status is Status.OK and given.file:
            progress(f"building the engine of {given.id}", done, len(source.variants))
            variants.append(_build(job, given, models, out, time_limit))
        else:
            variants.append(_pass_on(given, models, out))
    manifest = source.model_copy(update={"variants": variants})
    manifest.write(out)
    return manifest


def _build(job: Job, given: Variant, models: Path, out: Path, time_limit: float) -> Variant:
    missing = missing_module(given.runtime)
    if missing:
        return given.model_copy(update={"status": Status.SKIPPED, "reason": missing, "file": None})
    onnx, file = models / str(given.file), f"{given.id}/{ENGINE}"
    target = job.target
    try:
        card = build_engine(
            given.runtime, onnx, out / file, target.compute_capabilities, target.input_shape, time_limit
        )
    except BuildError as error:
        reason = f"no engine: {error}"
        return given.model_copy(update={"status": Status.FAILED, "reason": reason, "file": None})
    facts = card.model_dump(mode="json")
    write_json_atomic(out / given.id / CARD, facts)
    # The ONNX file stays beside the engine, which runs only on the GPUs and the version that it was built for.
    _copy_model(onnx, out / given.id)
    return given.model_copy(update={"file": file, "details": given.details | {"engine": facts}})


def _pass_on(given: Variant, models: Path, out: Path) -> Variant:
    if given.file is None:
        return given
    source = models / given.file
    _copy_model(source, out / given.id)
    return given.model_copy(update={"file": f"{given.id}/{source.name}"})


def _copy_model(source: Path, folder: Path) -> None:
    """Copies a model file with what belongs to it: OpenVINO's ``.bin``, ONNX's external data (``model.onnx.data``)."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.parent.glob(f"{source.stem}.*"):
        shutil.copyfile(path, folder / path.name)
