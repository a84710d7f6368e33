"""Rung 3: goes on training the user's model in mixed precision, and makes a bundle that `compress` takes."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from components.amp.cost import measure_costs
from components.amp.readme import readme
from components.core.contracts.job import Job, Precision
from components.core.contracts.training import StepCost, TrainingCard
from components.core.contracts.variant import Status
from components.core.errors import StepError, UserError
from components.core.files import staging
from components.core.models import load_torch_model, read_state_dict
from components.core.stepping import is_disk_full, progress
from components.core.training.bundle import WEIGHTS, recipe_of, write_trained_bundle
from components.core.training.checkpoints import Checkpoints, checkpoints_of
from components.core.training.outcome import environment, filled, without_bundle
from components.core.training.precision import native_precision, usable_device
from components.core.training.processes import run_trainings
from components.core.training.request import Request
from components.core.training.stopping import StoppedError
from components.core.training.task import TrainingTask, training_task

RUNG = "amp"


def run_amp(
    job: Job, bundle: Path, out: Path, bundle_uri: str = "", code_version: str = ""
) -> tuple[TrainingCard, Job]:
    """Trains the job's model and fills `out` with a bundle of the trained one.

    Killed at any moment, the next call with the same arguments goes on from its last checkpoint.

    Args:
        job: the job; `job.training` says how to train.
        bundle: what `fetch` made. Its test split is handed on and never read.
        out: folder that appears whole; only a card is in it when nothing could be trained.
        bundle_uri: where the bundle is from; in an S3 store the checkpoint is kept beside it.
        code_version: of hasten; another version does not go on from this one's checkpoints.

    Returns:
        The card, which says `skipped` or `failed` and why when there is no bundle, and the job for `compress`.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        UserError: the model cannot be loaded.
    """
    card = TrainingCard(
        rung=RUNG,
        status=Status.OK,
        settings=job.training,
        seed=job.budget.seed,
        model=job.model,
        environment=environment(),
    )
    if reason := untrainable(job):
        return without_bundle(out, card, Status.SKIPPED, reason), job
    module = load_torch_model(job.model, bundle / "model")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        return without_bundle(out, card, Status.SKIPPED, "the model has no parameters that take a gradient"), job
    try:
        task = training_task(job, bundle)
    except UserError as error:
        return without_bundle(out, card, Status.SKIPPED, str(error)), job
    device = usable_device()
    precision = native_precision(device) if job.training.precision is Precision.AUTO else job.training.precision
    card = card.model_copy(
        update={"precision": precision, "device": device, "trained_on": task.trained_on, "held_back": task.held_back}
    )
    checkpoints = checkpoints_of(_identity(job, bundle, precision, device, code_version), bundle_uri)
    try:
        card = _trained(job, bundle, out, card, task, module, checkpoints)
    except StoppedError:
        raise
    except Exception as error:  # a model that cannot be trained is a row with its reason, not the run's end
        if is_disk_full(error):
            raise
        words = " ".join(str(error).split())[:300]
        reason = (
            words if isinstance(error, StepError | UserError) else f"training failed: {type(error).__name__}: {words}"
        )
        return without_bundle(out, card, Status.FAILED, reason), job
    checkpoints.clear()
    return card, recipe_of(job, job.model)


def untrainable(job: Job) -> str:
    """Why the job's model has no form that can be trained; nothing if it has one."""
    if job.model.factory:
        return ""
    kind = ".pt2 program" if job.model.program else ".onnx file"
    return f"a {kind} holds a model for inference alone; give model.factory with model.weights to train it"


def _trained(
    job: Job,
    bundle: Path,
    out: Path,
    card: TrainingCard,
    task: TrainingTask,
    module: torch.nn.Module,
    checkpoints: Checkpoints,
) -> TrainingCard:
    if card.precision is None:
        raise ValueError("the precision is not chosen yet")
    progress("measuring the accuracy before")
    before = task.evaluate(module, card.device)
    request = Request(job=job, bundle=bundle, device=card.device, precision=card.precision)
    fp32, mixed = measure_costs(request, card.precision) if card.precision is not Precision.FP32 else (None, None)
    with staging(out, replace=True) as folder:
        work = folder / ".work"
        work.mkdir()
        training = request.model_copy(
            update={"out": work, "checkpoint_uri": checkpoints.uri, "identity": checkpoints.identity}
        )
        done = run_trainings(training, job.training.processes)
        module.load_state_dict(read_state_dict(work / WEIGHTS))
        progress("measuring the accuracy after")
        card = _with_costs(filled(card, done), fp32, mixed).model_copy(
            update={"accuracy_before": before, "accuracy_after": task.evaluate(module, card.device)}
        )
        card = write_trained_bundle(bundle, folder, work / WEIGHTS, card, readme(card))
        shutil.rmtree(work)
    return card


def _with_costs(card: TrainingCard, fp32: StepCost | None, mixed: StepCost | None) -> TrainingCard:
    step_ms = mixed.step_ms if mixed else None
    update: dict[str, Any] = {
        "estimated_seconds": round(step_ms * card.planned_steps / 1e3, 1) if step_ms else None,
        "fp32": fp32,
        "mixed": mixed,
    }
    if fp32 and mixed and fp32.step_ms and mixed.step_ms:
        update["step_speedup"] = round(fp32.step_ms / mixed.step_ms, 3)
    if fp32 and mixed and fp32.peak_bytes and mixed.peak_bytes:
        update["memory_ratio"] = round(mixed.peak_bytes / fp32.peak_bytes, 3)
    return card.model_copy(update=update)


def _identity(job: Job, bundle: Path, precision: Precision, device: str, code_version: str) -> str:
    """Digest of everything that decides which weights come out; limits and pauses do not, they only end it."""
    fetched = json.loads((bundle / "fetch_card.json").read_text())
    free = {"max_time", "max_core_time", "checkpoint_every", "processes", "workers"}
    facts = {
        "rung": RUNG,
        "training": job.training.model_dump(mode="json", exclude=free),
        "model": job.model.model_dump(mode="json"),
        "input_shape": job.target.input_shape,
        "seed": job.budget.seed,
        "weights": [file["sha256"] for file in fetched["model"]],
        "data": fetched["train"],
        "precision": precision,
        "device": device,
        "torch": torch.__version__,
        "code": code_version,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
