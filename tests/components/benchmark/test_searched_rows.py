"""Candidates that a search did not hand on are rows of the board too, each with what became of it."""

from pathlib import Path

from components.benchmark.run import _Folder, _of_training
from components.core.contracts.job import Runtime, Training
from components.core.contracts.leaderboard import Latency
from components.core.contracts.search import Entry, Probed, SearchCard
from components.core.contracts.training import TrainingCard
from components.core.contracts.variant import Status, Variant


def test_losers_of_a_search_are_skipped_or_failed_rows():
    fast = Probed(id="a", status=Status.OK, form="int8-x", latency_ms=Latency(p50=1.5, p90=2, p99=3))
    entries = [
        Entry(id="a", outcome="winner", probe=fast),
        Entry(id="b", outcome="dropped", reason="cannot meet the goal: p50 9 ms", probe=fast),
        Entry(id="c", outcome="failed", reason="no maps", probe=Probed(id="c", status=Status.FAILED, reason="no maps")),
    ]
    search = SearchCard(settings={}, winner="a", entries=entries, saved_by_probe_core_hours=0.5)
    card = TrainingCard(
        rung="backbone", techniques=["backbone", "a"], status=Status.OK, settings=Training(), seed=1, search=search
    )
    made = Variant(id="int8-onnxruntime", runtime=Runtime.ONNXRUNTIME, techniques=["surgery", "int8"], file="m.onnx")
    folder = _of_training(_Folder(Path(), "uri", (made,), (1, 3, 64, 96)), card)
    assert folder.size == (64, 96)  # of the winner, which may not be that of the user's model
    winner, dropped, failed = folder.variants
    assert (winner.id, winner.techniques) == ("backbone-a-int8-onnxruntime", ["backbone", "a", "surgery", "int8"])
    assert winner.details["training"]["search"]["saved_by_probe_core_hours"] == 0.5
    entrants = winner.details["training"]["search"]["entrants"]
    assert [row["outcome"] for row in entrants] == ["winner", "dropped", "failed"]
    assert (dropped.id, dropped.status, dropped.file) == ("backbone-b", Status.SKIPPED, None)
    assert dropped.reason == "cannot meet the goal: p50 9 ms"
    assert dropped.details["probe"]["probe_p50_ms"] == 1.5
    assert (failed.id, failed.status, failed.reason) == ("backbone-c", Status.FAILED, "no maps")
