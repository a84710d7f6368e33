from types import SimpleNamespace

import pytest
from leaderboard_rows import baseline, board, job, row

from components.core.contracts.leaderboard import Leaderboard
from components.leaderboard.component import decide, leaderboard
from components.leaderboard.metrics import metrics_of


def test_decide_answers_in_the_words_that_the_dag_branches_on():
    ask = {"job": job().model_dump_json(), "rung": "fp16"}
    assert decide.python_func(board=board(baseline()).model_dump_json(), **ask) == "climb"
    assert decide.python_func(board=board(baseline(), row("int8", 20.0)).model_dump_json(), **ask) == "stop"


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
