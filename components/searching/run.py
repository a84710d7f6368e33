"""A whole search: probe untrained entrants, drop, train the survivors by halves, hand on a bundle of the winner."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from components.core.contracts.job import Job, Precision, Search
from components.core.contracts.search import Entry, Probed, SearchCard
from components.core.contracts.training import TrainingCard
from components.core.contracts.variant import Status
from components.core.errors import StepError, UserError
from components.core.files import staging
from components.core.models import load_torch_model
from components.core.stepping import is_disk_full, progress
from components.core.training.bundle import WEIGHTS, recipe_of, write_trained_bundle
from components.core.training.checkpoints import checkpoints_of
from components.core.training.outcome import environment, filled, without_bundle
from components.core.training.precision import native_precision, usable_device
from components.core.training.stopping import StoppedError
from components.core.training.task import training_task
from components.searching.card import costs, entries_of
from components.searching.dominance import bases, choose, limits_of
from components.searching.entrant import Entrant, make_folder
from components.searching.halving import TRAINED, Raced, Setting, forget, halve
from components.searching.notes import Notes
from components.searching.probe import core_seconds, probe
from components.searching.readme import readme

MakeEntrants = Callable[[Job, Path], Sequence[Entrant]]
"""The entrants of a rung, from the job and the bundle; a UserError is the search's reason to be skipped."""


def run_search(
    rung: str,
    job: Job,
    bundle: Path,
    out: Path,
    settings: Search,
    make_entrants: MakeEntrants,
    bundle_uri: str = "",
    code_version: str = "",
) -> tuple[TrainingCard, Job]:
    """Searches, and fills `out` with a bundle of the winner, which `compress_trained` takes.

    Killed at any moment, the next call with the same arguments goes on: what was probed is not probed again, what was
    trained goes on from its last checkpoint.

    Args:
        rung: for instance `backbone`.
        job: the user's; `training` says how to train, `goal` what the probe drops by.
        bundle: what `fetch` made. Its test split is handed on and never read.
        out: folder that appears whole; only a card is in it when nothing could be trained.
        settings: the rung's section of the job.
        make_entrants: whom to look at.
        bundle_uri: where the bundle is from; in an S3 store the checkpoints are kept beside it.
        code_version: of hasten; another version does not take up this one's notes and checkpoints.

    Returns:
        The card, whose `search` has every entrant, and the job for `compress`. There is no bundle when the card says
        `skipped` or `failed`.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
    """
    card = TrainingCard(
        rung=rung, status=Status.OK, settings=job.training, seed=job.budget.seed, environment=environment()
    )
    if not job.model.factory:
        kind = ".pt2 program" if job.model.program else ".onnx file"
        reason = f"a {kind} holds a model for inference alone; give model.factory with model.weights to search from it"
        return without_bundle(out, card, Status.SKIPPED, reason), job
    try:
        entrants = list(make_entrants(job, bundle))
        task = training_task(job, bundle)
    except UserError as error:
        return without_bundle(out, card, Status.SKIPPED, str(error)), job
    device = usable_device()
    precision = native_precision(device) if job.training.precision is Precision.AUTO else job.training.precision
    card = card.model_copy(
        update={"precision": precision, "device": device, "trained_on": task.trained_on, "held_back": task.held_back}
    )
    identity = _identity(rung, job, settings, bundle, [one.id for one in entrants], precision, device, code_version)
    notes = Notes(checkpoints_of(identity, bundle_uri))
    search = SearchCard(settings=settings.model_dump(mode="json"), limits=limits_of(job.goal), entries=[])
    setting = Setting(settings.halving_rounds, precision, device, identity, bundle_uri)
    try:
        with staging(out, replace=True) as folder:
            card, search, winner = _searched(job, bundle, folder, entrants, settings, setting, notes, card, search)
            if winner is None:
                raise StepError(card.reason)
    except StoppedError:
        raise
    except Exception as error:  # a search that finds nothing is a row with its reason, not the run's end
        if is_disk_full(error):
            raise
        words = " ".join(str(error).split())[:600]
        ours = isinstance(error, StepError | UserError)
        reason = words if ours else f"the search failed: {type(error).__name__}: {words}"
        return without_bundle(out, card.model_copy(update={"search": search}), Status.FAILED, reason), job
    forget(entrants, setting)
    notes.clear()
    progress(f"{search.winner}: {search.why}")
    return card, recipe_of(winner.job, winner.job.model)


def _searched(
    job: Job,
    bundle: Path,
    folder: Path,
    entrants: list[Entrant],
    settings: Search,
    setting: Setting,
    notes: Notes,
    card: TrainingCard,
    search: SearchCard,
) -> tuple[TrainingCard, SearchCard, Entrant | None]:
    """The cards and the winner, whose bundle is in `folder`; no winner when the card's reason says why."""
    work = folder / ".work"
    work.mkdir()
    probed = _probed(job, bundle, entrants, settings, work, notes)
    decisions = choose(probed, job.goal, settings.slack, settings.keep)
    search = search.model_copy(
        update={
            "bases": bases(probed),
            "probe_core_seconds": sum(notes.section("probe-cost").values()),
            "entries": entries_of(probed, decisions, Raced({}, [], {})),
        }
    )
    chosen = {one.id for one in decisions if one.trains}
    survivors = [one for one in entrants if one.id in chosen]
    if not survivors:
        reason = f"none of {len(entrants)} candidates is left to train: {_reasons(search.entries)}"
        return card.model_copy(update={"reason": reason, "search": search}), search, None
    for one in survivors:
        if not (work / one.id / "model" / WEIGHTS).is_file():  # after a kill
            make_folder(one, bundle, work / one.id)
    before = training_task(job, bundle).evaluate(load_torch_model(job.model, bundle / "model"), setting.device)
    accuracy = (before or {}).get(str(job.goal.metric))
    wanted = accuracy - job.goal.max_accuracy_drop if accuracy is not None else None
    known = {one.id: one for one in probed}
    setting = replace(
        setting,
        probe_wall_seconds=sum(one.seconds for one in probed),
        probe_core_seconds=search.probe_core_seconds,
    )
    raced = halve(survivors, known, setting, work, notes, wanted)
    search = search.model_copy(update={"entries": entries_of(probed, decisions, raced)} | costs(raced, decisions))
    if not raced.finalists:
        reason = f"none of {len(survivors)} candidates could be trained: {_reasons(search.entries)}"
        return card.model_copy(update={"reason": reason, "search": search}), search, None
    winner = next(one for one in survivors if one.id == raced.finalists[0])
    last = raced.rounds[winner.id][-1]
    search = search.model_copy(update={"winner": winner.id, "why": _why(winner.id, raced, known, job, wanted)})
    boundaries = {one.steps for one in raced.rounds[winner.id]}
    card = filled(card, raced.outcome).model_copy(
        update={
            "techniques": [card.rung, winner.id],
            "accuracy_before": before,
            "accuracy_after": last.accuracy,
            "resumed_at": [step for step in raced.outcome["resumed_at"] if step not in boundaries],
            "reason": raced.stopped,
            "search": search,
        }
    )
    card = write_trained_bundle(bundle, folder, work / winner.id / TRAINED / WEIGHTS, card, readme(card))
    shutil.rmtree(work)
    return card, search, winner


def _probed(
    job: Job, bundle: Path, entrants: list[Entrant], settings: Search, work: Path, notes: Notes
) -> list[Probed]:
    """The probe's findings; its processor time is noted, a part after every interruption."""
    began = core_seconds()
    try:
        return probe(job, bundle, entrants, settings, work, notes)
    finally:
        parts = len(notes.section("probe-cost"))
        notes.add("probe-cost", {str(parts): round(core_seconds() - began, 3)})


def _why(winner: str, raced: Raced, probed: dict[str, Probed], job: Job, wanted: float | None) -> str:
    metric = str(job.goal.metric)
    last = raced.rounds[winner][-1]
    value = (last.accuracy or {}).get(metric)
    ratio = probed[winner].speedup
    faster = f"{ratio.ratio:.2f} times as fast as the baseline in the probe" if ratio else ""
    rivals = len(raced.finalists) - 1
    beaten = f", ahead of {rivals} that got as far" if rivals else ""
    if value is None:
        return f"{faster}; the samples held back cannot tell accuracies apart{beaten}"
    reached = f"{metric} {value:.3f} on what was held back"
    if wanted is not None:
        reached += f", {'at least' if value >= wanted else 'short of'} the {wanted:.3f} that the goal asks for"
    return f"{reached}; {faster}{beaten}"


def _reasons(entries: Sequence[Entry]) -> str:
    shown = [f"{one.id}: {one.reason}" for one in entries[:5]]
    more = f"; and {len(entries) - 5} more" if len(entries) > 5 else ""
    return "; ".join(shown) + more


def _identity(
    rung: str,
    job: Job,
    settings: Search,
    bundle: Path,
    entrants: list[str],
    precision: Precision,
    device: str,
    code_version: str,
) -> str:
    """Digest of everything that decides what is found; limits and pauses do not, they only end it."""
    fetched = json.loads((bundle / "fetch_card.json").read_text())
    free = {"max_time", "max_core_time", "checkpoint_every", "processes", "workers"}
    facts: dict[str, Any] = {
        "rung": rung,
        "settings": settings.model_dump(mode="json"),
        "training": job.training.model_dump(mode="json", exclude=free),
        "model": job.model.model_dump(mode="json"),
        "target": job.target.model_dump(mode="json"),
        "goal": job.goal.model_dump(mode="json"),
        "seed": job.budget.seed,
        "weights": [file["sha256"] for file in fetched["model"]],
        "data": fetched["train"],
        "entrants": entrants,
        "precision": precision,
        "device": device,
        "torch": torch.__version__,
        "code": code_version,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
