"""A budget is kept: a rung that does not fit is left out with the reason, a training gets what is left."""

import pytest
from leaderboard_rows import baseline, board, job, row
from test_ledger import BEGAN, CHARGES

from components.core.contracts.job import Rung
from components.core.contracts.ledger import Ledger
from components.leaderboard.budget import PAUSED, left, training_limits
from components.leaderboard.decide import decided
from components.leaderboard.grants import with_limits

# Spent so far, by CHARGES: 94 s in the steps, 188 s of cores, 41 s of a GPU. A rung more takes at least 41, 82 and 41.
SO_FAR = board(baseline(), row("int8", 60.0)).model_copy(update={"ledger": Ledger(charges=CHARGES)})


def job_with(training=None, **budget):
    changes = {"budget": job().budget.model_copy(update=budget)}
    if training:
        changes["training"] = job().training.model_copy(update=training)
    return job().model_copy(update=changes)


@pytest.mark.parametrize(
    ("budget", "now", "words"),
    [
        ({}, 1e9, ""),
        ({"max_time": 200.0}, BEGAN + 158, ""),
        ({"max_time": 200.0}, BEGAN + 159, "budget.max_time 3 min 20 s: 41.0 s left, and fp16 takes at least 41.0 s"),
        ({"max_time": 200.0}, BEGAN + 999, "budget.max_time 3 min 20 s: 0.0 s left"),
        ({"max_core_time": 271.0}, BEGAN, ""),
        ({"max_core_time": 270.0}, BEGAN, "budget.max_core_time 4 min 30 s: 1 min 22 s left"),
        ({"max_gpu_time": 83.0}, BEGAN, ""),
        ({"max_gpu_time": 82.0}, BEGAN, "budget.max_gpu_time 1 min 22 s: 41.0 s left"),
    ],
)
def test_a_rung_is_left_out_when_it_would_not_fit(budget, now, words):
    decision = decided(SO_FAR, "fp16", job_with(**budget), BEGAN, now)
    assert decision.climb is (not words)
    assert decision.reason.startswith(words)
    assert "(engine and benchmark of int8 took as long)" in decision.reason or not words


def test_a_training_rung_needs_room_for_both_techniques_and_for_training():
    assert decided(SO_FAR, "amp", job_with(max_core_time=400.0), BEGAN).climb
    reason = decided(SO_FAR, "amp", job_with(max_core_time=188.0 + 164.0), BEGAN).reason
    assert "amp takes at least 2 min 44 s and its training" in reason


def test_before_anything_was_climbed_the_rounds_are_the_least():
    first = board(baseline()).model_copy(update={"ledger": Ledger(charges=CHARGES[:3])})
    rounds = job().budget.rounds * job().budget.round_time * 2
    assert decided(first, "int8", job_with(max_core_time=60 + rounds + 1), BEGAN).climb
    assert (
        "rounds of one candidate and the baseline" in decided(first, "int8", job_with(max_core_time=60.0), BEGAN).reason
    )


def test_a_rung_that_is_not_needed_gives_no_reason():
    met = board(baseline(), row("int8", 22.0, 0.415)).model_copy(update={"ledger": Ledger(charges=CHARGES)})
    assert decided(met, "fp16", job_with(max_time=1.0), BEGAN, BEGAN + 99) == (False, "")


def test_a_pause_between_two_starts_is_not_spent(monkeypatch):
    asked = job_with(max_time=500.0)
    assert left(SO_FAR, asked, BEGAN, BEGAN + 300) == {"max_time": 200.0}
    monkeypatch.setenv(PAUSED, "250")
    assert left(SO_FAR, asked, BEGAN, BEGAN + 300) == {"max_time": 450.0}
    assert left(SO_FAR, asked, None) == {"max_time": 500.0 - 106}  # without a beginning: the steps' own time


@pytest.fixture
def granted(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path))

    def ask(asked, run_id="first", so_far=SO_FAR):
        made = with_limits(asked, Rung.AMP, so_far, asked, BEGAN, str(tmp_path / "bundle"), run_id)
        return made.training.max_time, made.training.max_core_time

    return ask


def test_a_training_gets_what_compressing_and_measuring_leaves(granted):
    assert granted(job_with()) == (None, None)
    assert granted(job_with(max_core_time=1000.0)) == (None, 1000 - 188 - 2 * 82)
    # A limit of the training's own holds if it is the smaller one; a process has one GPU.
    assert granted(job_with({"max_core_time": 10.0, "processes": 2}, max_core_time=1000.0, max_gpu_time=223.0)) == (
        50.0,
        10.0,
    )
    assert set(training_limits(SO_FAR, Rung.AMP, job_with(max_gpu_time=9.0), BEGAN)) == {"max_gpu_time"}


def test_what_was_granted_is_granted_again_so_that_the_cache_holds(granted):
    asked = job_with(max_core_time=1000.0)
    first = granted(asked)
    more = SO_FAR.model_copy(update={"ledger": Ledger(charges=CHARGES[:-1])})  # cheaper so far: more is left
    less = SO_FAR.model_copy(
        update={"ledger": Ledger(charges=[*CHARGES, CHARGES[-1].model_copy(update={"id": "x", "rung": "fp16"})])}
    )
    assert granted(asked, "second", more) == first
    assert granted(asked, "second", less) == first  # the same run, asked again after it was killed
    assert granted(asked, "third", less)[1] < first[1]
    assert granted(job_with(max_core_time=2000.0))[1] == first[1] + 1000
