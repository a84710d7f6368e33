import json
from types import SimpleNamespace

import pytest
from leaderboard_rows import baseline, board, job, row

from components.core.contracts.job import Budget, Job
from components.core.contracts.leaderboard import Leaderboard
from components.core.contracts.ledger import Ledger
from components.core.stepping import EVENTS
from components.leaderboard.component import decide, leaderboard
from components.leaderboard.metrics import metrics_of


def test_decide_answers_in_the_words_that_the_dag_branches_on():
    ask = {"job": job().model_dump_json(), "rung": "fp16"}
    assert decide.python_func(board=board(baseline()).model_dump_json(), **ask) == ("climb", "", "")
    met = board(baseline(), row("int8", 20.0)).model_dump_json()
    assert decide.python_func(board=met, training="{}", **ask) == ("stop", "", "{}")


def test_decide_limits_a_training_to_the_budget_or_says_why_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(EVENTS, str(tmp_path / "events"))
    asked = job().model_copy(update={"budget": Budget(max_core_time="1000 s")})
    so_far = board(baseline()).model_copy(update={"ledger": Ledger()}).model_dump_json()
    ask = {"board": so_far, "rung": "amp", "training": job().model_dump_json(), "started": "1000.0", "run_id": "run"}
    answer, reason, training = decide.python_func(job=asked.model_dump_json(), **ask)
    assert (answer, reason) == ("climb", "")
    rounds = 2 * 2 * asked.budget.rounds * asked.budget.round_time
    assert Job.model_validate_json(training).training.max_core_time == int(1000 - rounds)
    tight = asked.model_copy(update={"budget": Budget(max_time="1 h")})
    answer, reason, training = decide.python_func(job=tight.model_dump_json(), **ask)
    assert answer == "stop"  # it began in 1970
    assert reason.startswith("budget.max_time 1 h 00 min: 0.0 s left, and amp takes at least")
    assert training == ask["training"]
    (noted,) = (line for line in (tmp_path / "events").read_text().splitlines() if '"noted"' in line)
    assert json.loads(noted)["message"] == reason


def test_leaderboard_writes_and_returns_the_final_board(tmp_path):
    out = SimpleNamespace(path=str(tmp_path / "board.json"))
    given = board(baseline(), row("int8", 20.0)).model_dump_json()
    metrics = SimpleNamespace(metadata={})
    text = leaderboard.python_func(board=given, job=job().model_dump_json(), out=out, metrics=metrics)
    assert Leaderboard.model_validate_json(text).winner == "int8"
    assert (tmp_path / "board.json").read_text() == text
    assert metrics.metadata["goal_met"] == 1
    assert metrics.metadata["winner_p50_ms"] == 20.0
    assert metrics.metadata["baseline_p50_ms"] > 20.0


def test_a_board_without_a_winner_has_the_baselines_numbers():
    found = metrics_of(board(baseline()))
    assert found["goal_met"] == 0
    assert found["baseline_p50_ms"] > 0
    assert not [name for name in found if name.startswith("winner")]


def test_a_board_that_cannot_be_finished_ends_in_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        decide.python_func(board=board().model_dump_json(), job=job().model_dump_json(), rung="int8")
    assert stop.value.code == 1
    assert capsys.readouterr().err == "decide: the leaderboard has no baseline row 'eager' (it has no rows)\n"
