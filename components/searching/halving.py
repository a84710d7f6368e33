"""Trains the survivors of a probe by successive halving (Jamieson and Talwalkar 2016): the better half goes on.

Every entrant has one training with one schedule; a round takes it further, from the checkpoint of the round before.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.contracts.job import Job, Precision
from components.core.contracts.search import Probed, Round
from components.core.errors import StepError, UserError
from components.core.models import load_torch_model
from components.core.stepping import is_disk_full, progress
from components.core.training.checkpoints import Checkpoints, checkpoints_of
from components.core.training.data import Share
from components.core.training.processes import run_trainings
from components.core.training.request import Request
from components.core.training.stopping import StoppedError
from components.core.training.task import training_task
from components.searching.entrant import Entrant
from components.searching.notes import Notes

SECTION = "rounds"
TRAINED = "trained"
"""Folder in an entrant's bundle that its trained weights are written to."""


@dataclass(frozen=True)
class Setting:
    """What all trainings of a search share."""

    rounds: int
    precision: Precision
    device: str
    identity: str
    """Of the search; each training's is made of it and the entrant's id."""
    bundle_uri: str = ""
    probe_wall_seconds: float = 0.0
    """What the probe spent of the limits, and its processor time."""
    probe_core_seconds: float = 0.0


@dataclass(frozen=True)
class Raced:
    """How the halving went."""

    rounds: dict[str, list[Round]]
    """By entrant, all of its rounds."""
    finalists: list[str]
    """Who was trained in the last round, the best first; empty if none could be trained."""
    outcome: dict[str, Any]
    """How the best one's training went, as `trained.json` says."""
    stopped: str = ""
    """The limit that ended it before its last round."""


def halve(
    entrants: Sequence[Entrant],
    probed: Mapping[str, Probed],
    setting: Setting,
    work: Path,
    notes: Notes,
    wanted: float | None,
) -> Raced:
    """Trains the entrants, whose bundles are `work/ENTRANT/`; the best one's weights end up in `work/ENTRANT/trained/`.

    Args:
        entrants: those that the probe left.
        probed: their latencies, by id.
        setting: rounds, precision, device.
        work: the search's folder.
        notes: what is known already.
        wanted: accuracy on the samples held back that the goal asks for, 0..1; None if nobody knows.

    Raises:
        StoppedError: SIGINT or SIGTERM came; a checkpoint was written.
    """
    race = _Race(setting, work, notes, {one.id: one for one in entrants})
    running, stopped = [one.id for one in entrants], ""
    final: list[str] = []
    for number in range(1, setting.rounds + 1):
        left = [name for name in running if race.train(name, number)]
        if not left:
            final = []
            break
        final = ranked(left, race.accuracies(left, number), probed, _job(entrants), wanted)
        stopped = next((race.limit(name, number) for name in left if race.limit(name, number)), "")
        if stopped or (number == setting.rounds):
            break
        running = final[: -(-len(final) // 2)]
        for name in final[len(running) :]:
            race.drop_out(name, number, running)
    outcome = race.finish(final[0]) if final else {}
    return Raced(race.rounds(), final, outcome, stopped)


def forget(entrants: Sequence[Entrant], setting: Setting) -> None:
    """Removes the checkpoints of all trainings, once the winner is kept elsewhere."""
    for entrant in entrants:
        _checkpoints(entrant.id, setting).clear()


def ranked(
    names: Sequence[str],
    accuracies: Mapping[str, float | None],
    probed: Mapping[str, Probed],
    job: Job,
    wanted: float | None,
) -> list[str]:
    """The entrants, the best first: those that are accurate enough by their speed, then the others by their accuracy.

    Accurate enough is what reaches `wanted`. Where none does, as in the first rounds, it is what comes as near to the
    most accurate one as the goal's `max_accuracy_drop` lets a model fall.
    """
    known = [value for value in accuracies.values() if value is not None]
    best = max(known, default=0.0)
    enough = best - job.goal.max_accuracy_drop
    if wanted is not None and best >= wanted:
        enough = wanted

    def key(name: str) -> tuple[bool, float, float, str]:
        value, latency = accuracies.get(name), probed[name].speedup
        speed = -(latency.ratio if latency else 0.0)
        if value is None or not known:
            return bool(known), 0.0, speed, name
        good = value >= enough
        return (False, 0.0, speed, name) if good else (True, -value, speed, name)

    return sorted(names, key=key)


def share_of(number: int, rounds: int) -> float:
    """Part of the whole training that an entrant has behind it after a round; each doubles it, the last is all."""
    return 2.0 ** (number - rounds)


def _job(entrants: Sequence[Entrant]) -> Job:
    return entrants[0].job


class _Race:
    """Trains, judges and notes; every method can be called again after a kill."""

    def __init__(self, setting: Setting, work: Path, notes: Notes, entrants: Mapping[str, Entrant]) -> None:
        self._setting, self._work, self._notes, self._entrants = setting, work, notes, entrants

    def rounds(self) -> dict[str, list[Round]]:
        """All rounds that are noted, by entrant."""
        found: dict[str, list[Round]] = {}
        for key, value in self._notes.section(SECTION).items():
            found.setdefault(key.partition(":")[2], []).append(Round.model_validate(value))
        return {name: sorted(rounds, key=lambda one: one.number) for name, rounds in found.items()}

    def accuracies(self, names: Sequence[str], number: int) -> dict[str, float | None]:
        """What the goal's metric came to after a round."""
        metric = str(next(iter(self._entrants.values())).job.goal.metric)
        found = {name: self._noted(name, number) for name in names}
        return {name: (one.accuracy or {}).get(metric) if one else None for name, one in found.items()}

    def limit(self, name: str, number: int) -> str:
        """The limit of the job that ended a training in a round; empty if none did."""
        noted = self._noted(name, number)
        return noted.reason if noted and noted.reason.startswith("training.") else ""

    def train(self, name: str, number: int) -> bool:
        """Takes an entrant's training as far as the round wants it, and judges it; False if that failed."""
        noted = self._noted(name, number)
        if noted is None:
            progress(f"round {number} of {self._setting.rounds}: {name}")
            try:
                noted = self._trained(name, number)
            except StoppedError:
                raise
            except Exception as error:  # one that cannot be trained is out, and the others go on
                if is_disk_full(error):
                    raise
                noted = Round(number=number, steps=0, planned_steps=0, reason=_failure(error))
            self._note(name, noted)
        return noted.steps > 0

    def drop_out(self, name: str, number: int, ahead: Sequence[str]) -> None:
        """Notes that an entrant is not in the next round; its checkpoint is of no use any more."""
        noted = self._noted(name, number)
        if noted is not None and not noted.reason:
            self._note(name, noted.model_copy(update={"reason": f"behind {', '.join(ahead)} after round {number}"}))
        _checkpoints(name, self._setting).clear()

    def finish(self, name: str) -> dict[str, Any]:
        """Writes the winner's weights, from its checkpoint; how its training went."""
        return self._run(name, max(one.number for one in self.rounds()[name]), self._work / name / TRAINED)

    def _trained(self, name: str, number: int) -> Round:
        folder = self._work / name / TRAINED
        done = self._run(name, number, folder)
        entrant = self._entrants[name]
        module = load_torch_model(entrant.job.model, folder)
        judged = training_task(entrant.job, self._work / name).evaluate(module, self._setting.device)
        return Round(
            number=number,
            steps=done["steps"],
            planned_steps=done["planned_steps"],
            accuracy=judged,
            wall_seconds=done["wall_seconds"],
            core_seconds=done["core_seconds"],
            reason=done["stopped"] if done["stopped"].startswith("training.") else "",
        )

    def _run(self, name: str, number: int, folder: Path) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        entrant, checkpoints = self._entrants[name], _checkpoints(name, self._setting)
        training = entrant.job.training
        bundle = self._work / name
        planned = training.epochs * len(training_task(entrant.job, bundle).loader(Share()))
        share = share_of(number, self._setting.rounds)
        job = entrant.job.model_copy(update={"training": training.model_copy(update=self._limits(name, training))})
        request = Request(
            job=job,
            bundle=bundle,
            device=self._setting.device,
            precision=self._setting.precision,
            out=folder,
            checkpoint_uri=checkpoints.uri,
            identity=checkpoints.identity,
            steps=None if share == 1 else max(round(share * planned), 1),
        )
        return run_trainings(request, training.processes)

    def _limits(self, name: str, training: Any) -> dict[str, float | None]:
        """The job's limits are of the whole search: what the others spent is not this one's to spend."""
        last = [rounds[-1] for other, rounds in self.rounds().items() if other != name]
        wall = self._setting.probe_wall_seconds + sum(one.wall_seconds for one in last)
        core = self._setting.probe_core_seconds + sum(one.core_seconds for one in last)
        return {
            "max_time": max(training.max_time - wall, 1e-3) if training.max_time is not None else None,
            "max_core_time": max(training.max_core_time - core, 1e-3) if training.max_core_time is not None else None,
        }

    def _noted(self, name: str, number: int) -> Round | None:
        found = self._notes.section(SECTION).get(f"{number}:{name}")
        return Round.model_validate(found) if found else None

    def _note(self, name: str, noted: Round) -> None:
        self._notes.add(SECTION, {f"{noted.number}:{name}": noted.model_dump(mode="json")})


def _checkpoints(name: str, setting: Setting) -> Checkpoints:
    identity = hashlib.sha256(f"{setting.identity}\0{name}".encode()).hexdigest()
    return checkpoints_of(identity, setting.bundle_uri)


def _failure(error: Exception) -> str:
    words = " ".join(str(error).split())[:300]
    ours = isinstance(error, StepError | UserError)
    return words if ours else f"training failed: {type(error).__name__}: {words}"
