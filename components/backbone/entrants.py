"""The candidates of a job: the user's model with each of the named backbones, at each of the input sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from components.backbone.classifiers import build_classifier, classes_of, free_keys
from components.backbone.exchange import levels_of
from components.backbone.factory import build
from components.backbone.names import expand, family_of
from components.backbone.published import TOP1, published
from components.backbone.weights import load_body, pretrained_state, take_over
from components.core.contracts.job import Job, Task
from components.core.errors import StepError, UserError
from components.core.models import load_torch_model
from components.core.training.bundle import write_weights
from components.searching.entrant import Entrant, Facts, entrant_job

FACTORY = "components.backbone.factory:build"
CLASSIFIER = "components.backbone.classifiers:build_classifier"


def entrants(job: Job, bundle: Path) -> list[Entrant]:
    """An entrant for every candidate and input size.

    Args:
        job: the user's; `job.backbone` names the candidates.
        bundle: what `fetch` made, with the user's weights.

    Raises:
        UserError: a candidate that nobody knows, or a model whose backbone cannot be exchanged.
    """
    if job.task not in (Task.DETECTION, Task.CLASSIFICATION):
        raise UserError(f"task {job.task}: timm's and torchvision's backbones look at images; there are none for it")
    names = expand(job.backbone.candidates, job.target.device)
    user = load_torch_model(job.model, bundle / "model")
    shape = job.target.input_shape
    height, width = shape[2:]
    sizes = job.backbone.input_sizes or [(height, width)]
    try:
        if job.task is Task.CLASSIFICATION:
            classes = classes_of(user, shape)
            return [_classifier(job, name, size, classes) for name in names for size in sizes]
        levels_of(user, height, width)
    except StepError as error:
        raise UserError(str(error)) from error
    state = user.state_dict()
    return [_detector(job, name, size, state) for name in names for size in sizes]


def _detector(job: Job, name: str, size: tuple[int, int], user: Mapping[str, torch.Tensor]) -> Entrant:
    own = tuple(job.target.input_shape[2:])
    kwargs: dict[str, Any] = {
        "factory": job.model.factory,
        "kwargs": job.model.kwargs,
        "backbone": name,
        "designed_for": list(own),
    }
    if tuple(size) != own:
        kwargs["input_size"] = list(size)

    def prepare(path: Path) -> Facts:
        with torch.random.fork_rng():
            torch.manual_seed(job.budget.seed)
            module: Any = build(**kwargs)
        pretrained = pretrained_state(name, job.backbone.pretrained)
        take_over(module, user, body=pretrained is None)
        if pretrained is not None:
            load_body(module.backbone.body.net, pretrained, name)
        write_weights(module, path)
        return _facts(module, name, size)

    return Entrant(_id(job, name, size), entrant_job(job, FACTORY, kwargs, (size[0], size[1])), prepare)


def _classifier(job: Job, name: str, size: tuple[int, int], classes: int) -> Entrant:
    kwargs: dict[str, Any] = {"network": name, "classes": classes}

    def prepare(path: Path) -> Facts:
        with torch.random.fork_rng():
            torch.manual_seed(job.budget.seed)
            module = build_classifier(**kwargs)
        pretrained = pretrained_state(name, job.backbone.pretrained)
        if pretrained is not None:
            load_body(module, pretrained, name, free=free_keys(module))
        write_weights(module, path)
        return _facts(module, name, size)

    return Entrant(_id(job, name, size), entrant_job(job, CLASSIFIER, kwargs, (size[0], size[1])), prepare)


def _id(job: Job, name: str, size: tuple[int, int]) -> str:
    plain = name.replace("/", "-").lower()
    return f"{plain}-{size[0]}x{size[1]}" if job.backbone.input_sizes else plain


def _facts(module: torch.nn.Module, name: str, size: tuple[int, int]) -> Facts:
    known = published(name)
    return Facts(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        # At another input size the same parameters see more or less.
        family=f"{family_of(name)} at {size[0]} x {size[1]}",
        published=known,
        published_as=f"{TOP1} at {size[0]} x {size[1]}" if known is not None else "",
    )
