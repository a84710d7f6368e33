"""Successive halving on real trainings of tiny detectors: who goes on, what is kept, what a kill changes (nothing)."""

from pathlib import Path

import pytest
import torch

from components.core.contracts.job import Precision
from components.core.contracts.leaderboard import Latency, Ratio
from components.core.contracts.search import Probed
from components.core.contracts.variant import Status
from components.core.models import read_state_dict
from components.core.training.bundle import WEIGHTS
from components.core.training.checkpoints import Checkpoints
from components.searching import halving
from components.searching.entrant import make_folder
from components.searching.halving import TRAINED, Setting, forget, halve, ranked, share_of
from components.searching.notes import Notes
from fixtures.search_jobs import broken, make_bundle, sized


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))


def found(name: str, ratio: float) -> Probed:
    latency = Latency(p50=100 / ratio, p90=100 / ratio, p99=100 / ratio)
    speed = Ratio(ratio=ratio, ci_low=ratio, ci_high=ratio)
    return Probed(id=name, status=Status.OK, form="x", latency_ms=latency, speedup=speed)


class Track:
    """Three entrants in their folders, and a race of them."""

    def __init__(self, folder: Path) -> None:
        self.job, self.bundle = make_bundle(folder / "job")
        self.entrants = [sized(self.job, layers) for layers in (0, 1, 2)]
        self.probed = {one.id: found(one.id, 9.0 - number) for number, one in enumerate(self.entrants)}
        self.folder = folder

    def run(self, name: str, rounds: int, entrants=None):
        work = self.folder / name
        for one in entrants or self.entrants:
            make_folder(one, self.bundle, work / one.id)
        setting = Setting(rounds, Precision.FP32, "cpu", name)
        notes = Notes(Checkpoints(str(self.folder / f"{name}.pt"), name))
        return halve(entrants or self.entrants, self.probed, setting, work, notes, None), setting, notes


@pytest.fixture
def track(tmp_path):
    return Track(tmp_path)


def test_each_round_goes_twice_as_far_with_half_of_them(track):
    raced, setting, _ = track.run("three", 3)
    assert {name: [(one.number, one.steps) for one in rounds] for name, rounds in raced.rounds.items()} == {
        "wide-0": [(1, 3), (2, 6), (3, 12)],
        "wide-1": [(1, 3), (2, 6)],
        "wide-2": [(1, 3)],
    }
    assert raced.finalists == ["wide-0"]
    assert raced.outcome["steps"] == raced.outcome["planned_steps"] == 12
    assert raced.rounds["wide-2"][0].reason == "behind wide-0, wide-1 after round 1"
    assert raced.rounds["wide-1"][1].reason == "behind wide-0 after round 2"
    assert all(one.core_seconds > 0 for rounds in raced.rounds.values() for one in rounds)
    kept = [path.name for path in (track.folder / "cache" / "training").iterdir()]
    assert len(kept) == 1  # the winner's; those that dropped out left nothing behind
    forget(track.entrants, setting)
    assert not list((track.folder / "cache" / "training").iterdir())


def test_rounds_change_nothing_about_the_weights(track):
    raced, _, _ = track.run("rounds", 3, track.entrants[:1])
    whole, _, _ = track.run("whole", 1, track.entrants[:1])
    assert raced.finalists == whole.finalists
    one, other = (read_state_dict(track.folder / name / "wide-0" / TRAINED / WEIGHTS) for name in ("rounds", "whole"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_one_that_cannot_be_trained_is_out_and_the_others_go_on(track, monkeypatch):
    real = halving.run_trainings

    def refuse(request, processes):
        if "wide-0" in str(request.bundle):
            raise RuntimeError("no gradient to be had")
        return real(request, processes)

    monkeypatch.setattr(halving, "run_trainings", refuse)
    raced, _, _ = track.run("refused", 2)
    assert raced.rounds["wide-0"][0].reason == "training failed: RuntimeError: no gradient to be had"
    assert raced.finalists[0] == "wide-1"
    monkeypatch.setattr(halving, "run_trainings", lambda *_: (_ for _ in ()).throw(RuntimeError("none at all")))
    nothing, _, _ = track.run("none", 2)
    assert nothing.finalists == []
    assert nothing.outcome == {}


def test_killed_it_trains_no_round_again_and_ends_with_the_same_weights(track, monkeypatch):
    whole, _, _ = track.run("whole", 2)
    real, calls = halving.run_trainings, []

    def die(request, processes):
        calls.append((request.bundle.name, request.steps))
        if len(calls) == 4:  # the first one's second round
            raise KeyboardInterrupt
        return real(request, processes)

    monkeypatch.setattr(halving, "run_trainings", die)
    with pytest.raises(KeyboardInterrupt):
        track.run("killed", 2)
    calls[:] = [("", None)] * 10
    # The next life: its work folder is new, the notes and checkpoints are there.
    again, _, _ = track.run("killed", 2)
    assert calls[10:] == [("wide-0", None), ("wide-1", None), ("wide-0", None)]  # the last only writes the weights
    assert again.finalists == whole.finalists
    one, other = (read_state_dict(track.folder / name / "wide-0" / TRAINED / WEIGHTS) for name in ("whole", "killed"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_limit_of_the_job_is_of_all_trainings_together(track):
    limited = track.job.training.model_copy(update={"max_core_time": 0.01})
    track.job = track.job.model_copy(update={"training": limited})
    track.entrants = [sized(track.job, layers) for layers in (0, 1)]
    raced, _, _ = track.run("limited", 2)
    assert raced.stopped.startswith("training.max_core_time")
    assert {name: [one.steps for one in rounds] for name, rounds in raced.rounds.items()} == {
        "wide-0": [1],
        "wide-1": [1],
    }


def test_accurate_enough_goes_by_speed_and_the_rest_by_accuracy(track):
    job = track.job.model_copy(update={"goal": track.job.goal.model_copy(update={"max_accuracy_drop": 0.05})})
    names = ["a", "b", "c", "d"]
    probed = {name: found(name, ratio) for name, ratio in zip(names, (4.0, 3.0, 2.0, 1.0), strict=True)}
    accuracies = {"a": 0.5, "b": 0.78, "c": 0.8, "d": 0.7}
    # Nobody reaches 0.9: as good as the best is what is within 0.05 of it.
    assert ranked(names, accuracies, probed, job, 0.9) == ["b", "c", "d", "a"]
    # With the goal's accuracy reached, speed alone counts among those that reach it.
    assert ranked(names, accuracies, probed, job, 0.65) == ["b", "c", "d", "a"]
    assert ranked(names, accuracies, probed, job, 0.4) == ["a", "b", "c", "d"]
    assert ranked(names, dict.fromkeys(names), probed, job, None) == ["a", "b", "c", "d"]
    assert ranked(["a", "b"], {"a": None, "b": 0.1}, probed, job, None) == ["b", "a"]
    assert [share_of(number, 3) for number in (1, 2, 3)] == [0.25, 0.5, 1.0]


def test_an_entrant_that_cannot_be_built_says_why(track, tmp_path):
    with pytest.raises(RuntimeError, match="not for sale"):
        make_folder(broken(track.job), track.bundle, tmp_path / "broken")
