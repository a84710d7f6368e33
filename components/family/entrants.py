"""The candidates of a job: every model of the grid family x size x input resolution, untrained."""

from pathlib import Path
from typing import Any

import torch

from components.core.contracts.job import Job, Pretrained, Task
from components.core.errors import UserError
from components.core.models import call_factory, read_state_dict
from components.core.storage import materialize
from components.core.tasks.adapter import read_split, task_adapter
from components.core.training.bundle import write_weights
from components.family.build import FACTORY
from components.family.catalogue import expand
from components.family.classifiers import FACTORY as CLASSIFIER
from components.family.classifiers import architecture, expand_classifiers
from components.searching.entrant import Entrant, Facts, entrant_job

SMALLER = 0.75
"""Sides of the second resolution over those of the job's own, where the job gives none."""
MULTIPLE = 32


def entrants(job: Job, bundle: Path) -> list[Entrant]:
    """An entrant for every model and input size.

    Args:
        job: the user's; `job.family` names models and sizes.
        bundle: what `fetch` made; its training split says which labels there are.

    Raises:
        UserError: a model that nobody knows, or data without a category.
    """
    if job.task is Task.CLASSIFICATION:
        return _classifiers(job, bundle)
    if job.task is not Task.DETECTION:
        accepted = f"{Task.DETECTION}, {Task.CLASSIFICATION}"
        raise UserError(f"task: {job.task} has no families to search among; accepted: {accepted}")
    models = expand(job.family.candidates, job.target.device)
    labels = read_split(task_adapter(job, bundle), bundle, "train").labels
    if not labels:
        raise UserError("data.train lists no category, so there is nothing to detect")
    first, last = min(labels), max(labels)
    return [
        _entrant(job, model, size, {"classes": last - first + 1, "first_label": first})
        for model in models
        for size in _sizes(job)
    ]


def _classifiers(job: Job, bundle: Path) -> list[Entrant]:
    models = expand_classifiers(job.family.candidates, job.target.device)
    labels = read_split(task_adapter(job, bundle), bundle, "train").labels
    return [_entrant(job, model, size, {"classes": len(labels)}) for model in models for size in _sizes(job)]


def _sizes(job: Job) -> list[tuple[int, int]]:
    return job.family.input_sizes or default_sizes(*job.target.input_shape[2:])


def default_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The job's own input size, and one of three quarters of its sides, in whole strides, where that is smaller."""
    smaller = tuple(min(max(round(SMALLER * side / MULTIPLE), 1) * MULTIPLE, side) for side in (height, width))
    return list(dict.fromkeys([(height, width), (smaller[0], smaller[1])]))


def _entrant(job: Job, model: str, size: tuple[int, int], labels: dict[str, int]) -> Entrant:
    height, width = size
    kwargs: dict[str, Any] = {"model": model, "height": height, "width": width, **labels}
    classifies = job.task is Task.CLASSIFICATION
    factory, family = (CLASSIFIER, architecture(model)) if classifies else (FACTORY, model.partition("-")[0])
    name = model.replace("/", "-")

    def prepare(path: Path) -> Facts:
        with torch.random.fork_rng():
            torch.manual_seed(job.budget.seed)
            module = call_factory(factory, kwargs)
        if job.family.pretrained != Pretrained.NONE:
            take_over(module, _pretrained(model.rpartition("/")[2], job.family.pretrained), name)
        write_weights(module, path)
        return Facts(
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            # Sizes of a family compare by their parameters, at one resolution.
            family=f"{family} at {height} x {width}",
        )

    return Entrant(f"{name}-{height}x{width}", entrant_job(job, factory, kwargs, (height, width)), prepare)


def take_over(module: torch.nn.Module, state: dict[str, torch.Tensor], model: str) -> None:
    """Copies what has a place of the same name and shape; the rest, usually the classes, stays as it is.

    Raises:
        UserError: less than half of the parameters have one, so that the weights are of another model.
    """
    own = module.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    copied, all_of_it = (sum(value.numel() for value in one.values()) for one in (fitting, own))
    if copied < all_of_it / 2:
        raise UserError(
            f"family.pretrained: the weights for {model} are of another model: {copied} of its {all_of_it} numbers "
            "have a place of the same name and shape; save them from components.family.build:build"
        )
    module.load_state_dict(fitting, strict=False)


def _pretrained(model: str, place: str) -> dict[str, torch.Tensor]:
    try:
        return read_state_dict(materialize(f"{place.rstrip('/')}/{model}.safetensors"))
    except UserError as error:
        raise UserError(f"family.pretrained: {error}") from error
