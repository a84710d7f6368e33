"""A bundle around newly trained weights: what `fetch` makes, with another model, so that `compress` takes it."""

import json
from pathlib import Path

import torch

from components.core.contracts.job import Backbone, Family, Job, ModelSource, Training
from components.core.contracts.training import TRAINING_CARD, TrainingCard
from components.core.files import link_or_copy, sha256_file, write_bytes_atomic, write_json_atomic

WEIGHTS = "weights.safetensors"
_FETCH_CARD = "fetch_card.json"


def write_weights(module: torch.nn.Module, path: Path) -> None:
    """Writes a module's state as `.safetensors`; tensors that the module shares are written out each."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, save(state))


def write_trained_bundle(bundle: Path, folder: Path, weights: Path, card: TrainingCard, readme: str) -> TrainingCard:
    """Fills `folder` with the trained weights, the data of `bundle`, the cards and a README.

    Args:
        bundle: what the rung was given.
        folder: empty.
        weights: a file of `write_weights`.
        card: how it was trained; the hashes are filled in.
        readme: Markdown.

    Returns:
        The card with the hashes.
    """
    for source in sorted((bundle / "data").rglob("*")):
        if source.is_file():
            link_or_copy(source, folder / source.relative_to(bundle), "the data")
    target = folder / "model" / WEIGHTS
    link_or_copy(weights, target, "the weights")
    fetched = json.loads((bundle / _FETCH_CARD).read_text())
    before, sha256 = fetched["model"][0], sha256_file(target)
    made_of = f"{card.rung} of {before['source']}"
    size = target.stat().st_size
    fetched["total_bytes"] += size - before["size_bytes"]
    others = fetched["model"][1:]  # a text model's tokenizer
    for file in others:
        link_or_copy(bundle / file["file"], folder / file["file"], "what belongs to the model")
    fetched["model"] = [{"file": f"model/{WEIGHTS}", "source": made_of, "sha256": sha256, "size_bytes": size}, *others]
    write_json_atomic(folder / _FETCH_CARD, fetched)
    card = card.model_copy(update={"source_sha256": before["sha256"], "weights_sha256": sha256})
    write_card(folder, card)
    write_bytes_atomic(folder / "README.md", readme.encode())
    return card


def write_card(folder: Path, card: TrainingCard) -> None:
    """Writes `training_card.json`."""
    write_bytes_atomic(folder / TRAINING_CARD, card.model_dump_json(indent=2).encode())


def recipe_of(job: Job, model: ModelSource) -> Job:
    """The job that the steps of `compress` get for a trained bundle: how it was trained is no part of their keys.

    Args:
        job: what the rung was given.
        model: the factory of what it trained, if that is another one; the weights are those of the bundle.
    """
    trained = ModelSource(factory=model.factory, kwargs=model.kwargs, weights=WEIGHTS)
    # How it came about is no part of how it is compressed.
    settings = {"training": Training(), "backbone": Backbone(), "family": Family(), "distill": None}
    return job.model_copy(update={"model": trained, "goal": job.goal.of_models(), **settings})
