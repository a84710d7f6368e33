"""The bill of a run: what the cache gave costs nothing, what was not climbed is estimated or unknown."""

import pytest
from leaderboard_rows import baseline, board, job, row

from components.core.contracts.job import Rung
from components.core.contracts.ledger import Charge, Ledger
from components.core.ledger_words import ledger_rows, saved_lines
from components.leaderboard.accounts import BUDGET, settled
from components.leaderboard.finish import finish
from components.leaderboard.metrics import metrics_of

BEGAN = 1000.0


def charge(rung, step, identity, started, wall, core=None, gpu=0.0):
    core = 2 * wall if core is None else core
    return Charge(
        rung=rung, step=step, id=identity, started=started, wall_seconds=wall, core_seconds=core, gpu_seconds=gpu
    )


CHARGES = [
    charge("", "fetch", "f", 10, 5),  # of an earlier run
    charge("", "export", "e", 20, 7),
    charge("", "benchmark", "b0", 1001, 30),
    charge("int8", "export", "e", 20, 7),
    charge("int8", "surgery", "s", 1040, 3),
    charge("int8", "int8", "q", 1050, 20),
    charge("int8", "engine", "n", 1080, 1, gpu=1),
    charge("int8", "benchmark", "b1", 1090, 40, gpu=40),
]
GOOD = row("int8", 22.0, 0.415)


def with_charges(*rows, charges=CHARGES):
    return board(baseline(), *rows).model_copy(update={"ledger": Ledger(charges=charges)})


def bills(ledger):
    return {bill.rung: bill for bill in ledger.rungs}


def test_what_the_cache_gave_costs_nothing_and_is_named():
    found = settled(Ledger(charges=CHARGES), BEGAN)
    before, int8 = bills(found)[""], bills(found)["int8"]
    assert (before.wall_seconds, before.steps, before.cached) == (30, ["benchmark"], ["fetch", "export"])
    assert (int8.wall_seconds, int8.core_seconds, int8.gpu_seconds) == (64, 128, 41)
    assert int8.cached == ["export"]
    assert found.total.wall_seconds == 94
    # What it took when it was made stays known.
    assert found.charges[0].wall_seconds == 5
    assert found.charges[0].cached


def test_a_step_that_two_rungs_share_is_paid_once():
    shared = [charge("int8", "surgery", "s", 2000, 3), charge("fp16", "surgery", "s", 2000, 3)]
    found = settled(Ledger(charges=shared), BEGAN)
    assert [bills(found)[rung].wall_seconds for rung in ("int8", "fp16")] == [3, 0]
    assert bills(found)["fp16"].cached == ["surgery"]
    # A resumed run has its first start as its beginning: what the start that was killed made is its own.
    assert settled(Ledger(charges=CHARGES), 5).total.wall_seconds == 106


def test_stopping_early_saved_what_the_next_rung_takes_at_least():
    final = finish(with_charges(GOOD), job(), BEGAN)
    fp16, amp = final.ledger.not_climbed[:2]
    assert (fp16.rung, fp16.why) == ("fp16", "the goal was met before")
    assert (fp16.wall_seconds, fp16.core_seconds, fp16.gpu_seconds) == (41, 82, 41)
    assert fp16.basis == "engine and benchmark of int8 took as long"
    assert (amp.rung, amp.wall_seconds) == ("amp", None)
    assert finish(final, job(), BEGAN) == finish(final, job()) == final
    lines = saved_lines(final.ledger)
    assert lines[0].startswith("fp16 was not climbed (the goal was met before); saved at least 41.0 s")
    assert "unknown: nothing was trained" in lines[1]
    assert metrics_of(final)["cost_core_seconds"] == 188


def test_nothing_is_made_up_where_nothing_was_seen():
    final = finish(with_charges(charges=CHARGES[:3]), job(), BEGAN)
    assert [each.rung for each in final.ledger.not_climbed] == [str(rung) for rung in Rung]
    assert all(each.wall_seconds is None and each.basis for each in final.ledger.not_climbed)
    assert finish(board(baseline()), job()).ledger is None


def test_a_rung_that_the_budget_left_out_says_so():
    left_out = row("fp16").model_copy(update={"rung": "fp16", "status": "skipped", "details": {BUDGET: "no time left"}})
    final = finish(with_charges(row("int8", 60.0), left_out), job(rungs=["int8", "fp16"]), BEGAN)
    (fp16,) = final.ledger.not_climbed
    assert (fp16.why, fp16.wall_seconds) == ("no time left", 41)


@pytest.mark.parametrize("climbed", [True, False])
def test_every_rung_and_the_sum_are_rows(climbed):
    charges = CHARGES if climbed else CHARGES[:3]
    rows = ledger_rows(settled(Ledger(charges=charges), BEGAN))
    assert [cells[0] for cells in rows] == ["before the first rung", *(["int8"] if climbed else []), "total"]
    assert rows[0][1:] == ("30.0 s", "1 min 00 s", "", "benchmark", "fetch, export")
    assert rows[-1][3] == ("41.0 s" if climbed else "")
