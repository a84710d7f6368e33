"""Times untrained entrants on the target, each made fit for it first, side by side with the user's model as it runs.

How fast a network is depends on its shape and hardly on its weights: an hour of training decides nothing that a few
seconds of timing can. Every process alternates with the baseline's in the same rounds, so that entrants of different
groups compare by their ratio to it.
"""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.benchmark.measure import Entry, Measured, Track, measure_latency
from components.benchmark.process import WorkerError
from components.benchmark.rounds import Pace
from components.benchmark.rows import model_size
from components.benchmark.trial import best_setting
from components.core.apart import DiedError, run_apart
from components.core.contracts.job import Job, Runtime, Search
from components.core.contracts.search import Probed
from components.core.contracts.variant import Status, Variant
from components.core.errors import StepError, UserError
from components.core.machine import usable_cores
from components.core.runtimes.interface import availability
from components.core.stepping import is_disk_full, progress
from components.core.tasks.adapter import read_split, task_adapter
from components.searching.build_worker import Task
from components.searching.entrant import Entrant, Facts, make_folder
from components.searching.notes import Notes

BUILDER = "components.searching.build_worker"
TIME_LIMIT = 900.0
"""Seconds to make one entrant fit for its runtimes."""
GROUP = 8
"""Forms that are made in one process and timed side by side; the baseline runs along with every group."""
SECTION = "probe"
_WARM_UP = 2.0


@dataclass
class _Built:
    """An entrant on its way through the probe."""

    entrant: Entrant
    facts: Facts
    seconds: float
    forms: list[tuple[Variant, Path]]
    reason: str = ""


def probe(
    job: Job, bundle: Path, entrants: Sequence[Entrant], settings: Search, work: Path, notes: Notes
) -> list[Probed]:
    """Times every entrant that the notes do not know yet, and notes it.

    Args:
        job: the user's: its model is the baseline, its target says where to time.
        bundle: what `fetch` made; samples of the training split are timed on, `test` is not looked at.
        entrants: whom to time.
        settings: rounds and whether in INT8 too.
        work: folder for the time being; afterwards `work/ENTRANT/` holds the bundle of each that was built.
        notes: what is known already.

    Returns:
        What was found out, in the order of the entrants; one that failed has its reason.

    Raises:
        StepError: the user's model cannot be timed, or no runtime of the job runs here.
    """
    runtimes = _timed_here(job)
    waiting = [entrant for entrant in entrants if entrant.id not in notes.section(SECTION)]
    together = max(GROUP // (len(runtimes) * (2 if settings.probe_int8 else 1)), 1)
    for start in range(0, len(waiting), together):
        names = ", ".join(one.id for one in waiting[start : start + together])
        progress(f"making {names} fit for the target", start, len(waiting))
        group = _build(waiting[start : start + together], bundle, runtimes, settings, work)
        _note(notes, [_failed(one) for one in group if not one.forms])
        timed = [one for one in group if one.forms]
        if timed:
            _note(notes, _time_group(job, bundle, timed, settings, work, notes))
    known = notes.section(SECTION)
    return [Probed.model_validate(known[entrant.id]) for entrant in entrants]


def core_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def _timed_here(job: Job) -> list[Runtime]:
    """The job's runtimes that run here; entrants are made fit for no others."""
    reasons = {
        runtime: availability(runtime, job.target.device)
        for runtime in job.target.runtimes
        if runtime is not Runtime.TORCH  # as which the user's own model runs
    }
    usable: list[Runtime] = [runtime for runtime, reason in reasons.items() if reason is None]
    if not usable:
        words = "; ".join(f"{runtime}: {reason}" for runtime, reason in reasons.items())
        raise StepError(
            f"no candidate can be probed, since no runtime of target.runtimes can be timed here "
            f"({words or 'torch runs the model as it is'})"
        )
    return usable


def _build(
    entrants: Sequence[Entrant], bundle: Path, runtimes: list[Runtime], settings: Search, work: Path
) -> list[_Built]:
    """Makes the entrants' forms; whatever one of them does, only that one is out."""
    group = [_prepared(entrant, bundle, work) for entrant in entrants]
    waiting = [built for built in group if not built.reason]
    while waiting:
        tasks = [_task(built.entrant, runtimes, settings, work / built.entrant.id) for built in waiting]
        died = ""
        try:
            answer = run_apart(BUILDER, {"tasks": tasks}, TIME_LIMIT * len(waiting))
        except DiedError as error:
            died, answer = str(error), error.partial
        for built in waiting:
            if found := answer.get(built.entrant.id):
                built.reason, built.forms = _usable(built.entrant.job, found)
                built.seconds += found["seconds"]
        waiting = [built for built in waiting if built.entrant.id not in answer]
        if died and waiting:  # at the first that has no answer; the others get a process of their own
            waiting.pop(0).reason = died
    return group


def _prepared(entrant: Entrant, bundle: Path, work: Path) -> _Built:
    """The entrant's folder, or why there is none."""
    began = time.perf_counter()
    built = _Built(entrant, Facts(), 0.0, [])
    try:
        built.facts = make_folder(entrant, bundle, work / entrant.id)
    except Exception as error:  # a network that cannot take part is a row with its reason
        if is_disk_full(error):
            raise
        words = " ".join(str(error).split())[:300]
        ours = isinstance(error, UserError | StepError)
        built.reason = words if ours else f"{type(error).__name__}: {words}"
    built.seconds = time.perf_counter() - began
    return built


def _task(entrant: Entrant, runtimes: list[Runtime], settings: Search, folder: Path) -> dict[str, Any]:
    target = entrant.job.target.model_copy(update={"runtimes": runtimes})
    job = entrant.job.model_copy(update={"target": target})
    task = Task(id=entrant.id, job=job, bundle=folder, out=folder / "forms", int8=settings.probe_int8)
    return task.model_dump(mode="json")


def _usable(job: Job, answer: dict[str, Any]) -> tuple[str, list[tuple[Variant, Path]]]:
    """Why there is nothing to time, and what there is."""
    reasons, usable = [answer.get("reason", "")], []
    for form in answer.get("forms", []):
        variant, folder = Variant.model_validate(form["variant"]), Path(form["folder"])
        if variant.status is not Status.OK or variant.file is None:
            reasons.append(f"{variant.id}: {variant.reason}")
        elif reason := availability(variant.runtime, job.target.device):
            reasons.append(f"{variant.id}: {reason}")
        else:
            usable.append((variant, folder))
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))[:600], usable


def _time_group(
    job: Job, bundle: Path, group: list[_Built], settings: Search, work: Path, notes: Notes
) -> list[Probed]:
    began = time.perf_counter()
    track = _track(job, bundle, settings, work)
    baseline = _baseline(job, track, work, notes)
    entries = {
        f"{built.entrant.id}.{variant.id}": (built, variant, folder)
        for built in group
        for variant, folder in built.forms
    }
    threads = job.target.threads or usable_cores()
    contestants = [
        Entry(
            variant.model_copy(update={"id": name}),
            folder,
            threads,
            baseline.passive,
            (built.entrant.size[0], built.entrant.size[1]),
        )
        for name, (built, variant, folder) in entries.items()
    ]
    names = ", ".join(built.entrant.id for built in group)
    progress(f"timing {names}")
    try:
        results = measure_latency(baseline, contestants, track, progress)
    except WorkerError as error:
        raise StepError(f"the user's own model could not be timed beside the candidates: {error}") from error
    share = (time.perf_counter() - began) / len(group)
    return [
        _best(
            built,
            [(variant, folder, results[name]) for name, (owner, variant, folder) in entries.items() if owner is built],
            share,
        )
        for built in group
    ]


def _baseline(job: Job, track: Track, work: Path, notes: Notes) -> Entry:
    """The user's model as it runs, in the fastest thread setting, which is looked for once."""
    entry = Entry(Variant(id="eager", runtime=Runtime.TORCH, techniques=[]), work, job.target.threads or usable_cores())
    if job.target.device != "cpu":
        return entry
    known = notes.section("baseline")
    if not known:
        try:
            chosen, _ = best_setting(entry, track, progress)
        except WorkerError as error:
            raise StepError(f"the user's own model cannot be timed: {error}") from error
        known = {"threads": chosen.threads, "passive": chosen.passive}
        notes.add("baseline", known)
    return replace(entry, threads=known["threads"], passive=known["passive"])


def _track(job: Job, bundle: Path, settings: Search, work: Path) -> Track:
    adapter = task_adapter(job, bundle)
    return Track(
        adapter=adapter,
        split=read_split(adapter, bundle, "train"),
        input_shape=job.target.input_shape,
        out=work / ".timing",
        pace=Pace(settings.probe_rounds, settings.probe_round_time, job.budget.seed),
        job=job,
        bundle=bundle,
        warmup_seconds=_WARM_UP,
    )


def _best(built: _Built, timed: list[tuple[Variant, Path, Measured]], share: float) -> Probed:
    """The entrant's fastest form."""
    alive = [(variant, folder, one) for variant, folder, one in timed if not one.failure and one.speedup]
    if not alive:
        reasons = dict.fromkeys(f"{variant.id}: {one.failure}" for variant, _, one in timed)
        return _failed(replace(built, reason="; ".join(reasons)[:600], seconds=built.seconds + share))
    variant, folder, fastest = max(alive, key=lambda one: one[2].speedup.ratio if one[2].speedup else 0.0)
    return _facts(built).model_copy(
        update={
            "status": Status.OK,
            "reason": built.reason,
            "form": variant.id,
            "latency_ms": fastest.latency,
            "speedup": fastest.speedup,
            "throughput": fastest.throughput,
            "size_bytes": model_size(folder / str(variant.file)),
            "forms": {one.id: round(result.latency.p50, 4) for one, _, result in alive if result.latency},
            "seconds": round(built.seconds + share, 3),
        }
    )


def _failed(built: _Built) -> Probed:
    reason = built.reason or "nothing of it can be timed here"
    return _facts(built).model_copy(update={"reason": reason, "seconds": round(built.seconds, 3)})


def _facts(built: _Built) -> Probed:
    facts = built.facts
    return Probed(
        id=built.entrant.id,
        status=Status.FAILED,
        parameters=facts.parameters,
        family=facts.family,
        published=facts.published,
        published_as=facts.published_as,
    )


def _note(notes: Notes, found: Sequence[Probed]) -> None:
    notes.add(SECTION, {one.id: one.model_dump(mode="json") for one in found})
