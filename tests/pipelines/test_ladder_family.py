"""The rung `family` in a whole run on a tiny detector: a grid of two by two, one trained, compressed and measured."""

import json

import pytest
from tiny_job import hasten, make_tiny_job

pytestmark = pytest.mark.slow
TRAINING = {"epochs": 2, "batch": 2, "precision": "fp32", "learning_rate": 0.001}
FAMILY = {
    "candidates": ["yolox-n", "ssdlite-small"],
    "input_sizes": [[64, 64], [96, 96]],
    "keep": 1,
    "halving_rounds": 1,
    "probe_rounds": 3,
    "probe_round_time": "0.05 s",
    "probe_int8": False,
}


def test_the_winner_is_compressed_at_its_own_resolution(tmp_path):
    # The goal's latency is met by all, and its size by none: the ladder reports that, and the search trains.
    goal = {"max_p99": "5 s", "max_size": "1 kB", "max_accuracy_drop": 1.0}
    make_tiny_job(tmp_path / "job", training=TRAINING, family=FAMILY, goal=goal)
    job, out = tmp_path / "job" / "job.yaml", tmp_path / "out"
    done = hasten(tmp_path / "cache", "run", job, "--out", out, "--json", "--rungs", "family")
    assert done.returncode == 3, done.stderr
    board = json.loads(done.stdout)
    rows = {row["id"]: row for row in board["candidates"] if row["rung"] == "family"}
    entrants = [f"{model}-{side}x{side}" for model in ("yolox-n", "ssdlite-small") for side in (64, 96)]
    (winner,) = (name for name in entrants if f"family-{name}" not in rows)
    made = {f"family-{winner}-{form}-onnxruntime" for form in ("surgery", "int8", "fp16")}
    assert made <= set(rows)
    assert set(rows) - made - {f"family-{winner}-trimmed-onnxruntime"} >= {
        f"family-{one}" for one in entrants if one != winner
    }
    measured = rows[f"family-{winner}-surgery-onnxruntime"]
    assert measured["status"] == "ok", measured["reason"]
    assert measured["techniques"][:2] == ["family", winner]
    assert measured["speedup"]["ratio"] > 0
    assert measured["latency_ms"]["p50"] > 0
    search = measured["details"]["training"]["search"]
    assert search["winner"] == winner
    assert {one["id"]: one["outcome"] for one in search["entrants"]}[winner] == "winner"
    for name in entrants:
        if name != winner:
            assert rows[f"family-{name}"]["status"] == "skipped"
            assert rows[f"family-{name}"]["details"]["probe"]["probe_p50_ms"] > 0
