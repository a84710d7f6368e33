"""What steps cost: measured with their children, kept beside the output, handed on, charged once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.contracts.leaderboard import Leaderboard
from components.core.contracts.ledger import Cost
from components.core.costs import COSTS, Meter, charged, read_costs
from components.core.stepping import EVENTS, step

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
GOAL = {"min_speedup": "2x", "max_accuracy_drop": 0.01}
EMPTY = Leaderboard(job="trees", goal=GOAL, baseline="eager", candidates=[])


def cost(step_name: str, identity: str, **fields) -> Cost:
    return Cost(
        **({"step": step_name, "id": identity, "started": 100.0, "wall_seconds": 2, "core_seconds": 3} | fields)
    )


def account(folder, *costs):
    folder.mkdir(exist_ok=True)
    (folder / COSTS).write_text(json.dumps({"costs": [each.model_dump() for each in costs]}))
    return folder


def test_processor_time_of_children_counts(tmp_path):
    meter = Meter("surgery")
    subprocess.run([sys.executable, "-c", BURN], check=True)
    found = meter.cost(gpus=2)
    assert found.core_seconds >= 0.3
    assert found.wall_seconds >= 0.3
    assert found.gpu_seconds == pytest.approx(2 * found.wall_seconds, abs=0.01)
    # What earlier lives of a training took is more than what this process saw of it.
    assert meter.cost(wall_seconds=1000, core_seconds=2000).core_seconds == 2000
    assert Meter("a").cost().id != Meter("a").cost().id


def test_a_folder_hands_on_what_it_was_made_from(tmp_path):
    before = account(tmp_path / "export", cost("export", "e1"))
    with step("surgery") as meter:
        meter.keep(tmp_path / "surgery", after=[before, tmp_path / "no-account"])
    found = read_costs(tmp_path / "surgery")
    assert [each.step for each in found] == ["export", "surgery"]
    assert found[0] == cost("export", "e1")
    # Of two folders that share a step, its cost is there once.
    assert [each.step for each in read_costs(tmp_path / "surgery", before)] == ["export", "surgery"]


def test_what_cannot_be_read_is_no_account(tmp_path):
    for number, text in enumerate(["", "{", "[]", '{"costs": 3}', '{"costs": [{"step": "x"}]}']):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / COSTS).write_text(text)
        assert read_costs(folder) == []


def test_a_rung_is_charged_once_and_never_for_what_fetch_brought(tmp_path):
    bundle = account(tmp_path / "bundle", cost("fetch", "f1"))
    exported = account(tmp_path / "exported", cost("export", "e1"))
    models = account(tmp_path / "models", cost("export", "e1"), cost("surgery", "s1"), cost("int8", "i1"))
    board = charged(EMPTY, "", [bundle, exported], cost("benchmark", "b0"))
    board = charged(board, "int8", [bundle, models], cost("benchmark", "b1"))
    again = charged(board, "int8", [bundle, models])
    assert again == board
    steps = [(each.rung, each.step) for each in board.ledger.charges]
    assert steps == [
        *(("", name) for name in ("fetch", "export", "benchmark")),
        *(("int8", name) for name in ("export", "surgery", "int8", "benchmark")),
    ]


def test_the_live_view_hears_of_processor_time(tmp_path, monkeypatch):
    monkeypatch.setenv(EVENTS, str(tmp_path / "events"))
    with step("fetch"):
        subprocess.run([sys.executable, "-c", BURN], check=True)
    (done,) = (json.loads(line) for line in (tmp_path / "events").read_text().splitlines() if '"done"' in line)
    assert done["core_seconds"] >= 0.3


def test_every_step_that_makes_a_folder_keeps_account_of_it():
    """A new rung without this would be left out of the ledger, and would not count towards the budget."""
    root = Path(__file__).parents[3] / "components"
    makers = [
        path
        for path in root.glob("*/component.py")
        if re.search(r"dsl\.Output\[dsl\.(Model|Dataset)\]", path.read_text())
    ]
    assert len(makers) >= 7
    for path in makers:
        assert ".keep(" in path.read_text(), f"{path.parent.name}: no cost.keep(...) in its body"
