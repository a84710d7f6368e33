"""The rung `backbone` in a whole run on a tiny detector: probed, one trained, compressed, every candidate a row."""

import json

import pytest
from tiny_job import hasten, make_tiny_job

from components.core.contracts.training import TrainingCard

pytestmark = pytest.mark.slow
TRAINING = {"epochs": 2, "batch": 2, "precision": "fp32", "learning_rate": 0.001}
BACKBONE = {
    "candidates": ["timm/lcnet_035", "timm/lcnet_05*", "timm/vit_tiny_patch16_224"],
    "keep": 1,
    "halving_rounds": 1,
    "probe_rounds": 3,
    "probe_round_time": "0.05 s",
    "probe_int8": False,
}


def test_the_winner_is_compressed_and_every_candidate_is_a_row(tmp_path):
    # The goal's latency is met by all, and its size by none: the ladder reports that, and the search trains.
    goal = {"max_p99": "5 s", "max_size": "1 kB", "max_accuracy_drop": 1.0}
    make_tiny_job(tmp_path / "job", training=TRAINING, backbone=BACKBONE, goal=goal)
    job, out = tmp_path / "job" / "job.yaml", tmp_path / "out"
    done = hasten(tmp_path / "cache", "run", job, "--out", out, "--json", "--rungs", "backbone")
    assert done.returncode == 3, done.stderr
    board = json.loads(done.stdout)
    rows = {row["id"]: row for row in board["candidates"] if row["rung"] == "backbone"}
    winner = next(name for name in ("timm-lcnet_035", "timm-lcnet_050") if f"backbone-{name}" not in rows)
    loser = {"timm-lcnet_035": "timm-lcnet_050", "timm-lcnet_050": "timm-lcnet_035"}[winner]
    made = {f"backbone-{winner}-{form}-onnxruntime" for form in ("surgery", "int8", "fp16")}
    assert set(rows) == made | {f"backbone-{loser}", "backbone-timm-vit_tiny_patch16_224"}
    quantized = rows[f"backbone-{winner}-int8-onnxruntime"]
    assert quantized["status"] == "ok", quantized["reason"]
    assert quantized["techniques"] == ["backbone", winner, "surgery", "int8"]
    assert quantized["speedup"]["ratio"] > 0
    lost = rows[f"backbone-{loser}"]
    assert (lost["status"], lost["latency_ms"]) == ("skipped", None)
    assert lost["reason"].startswith("not among the 1 that are trained")
    assert lost["details"]["probe"]["probe_p50_ms"] > 0
    failed = rows["backbone-timm-vit_tiny_patch16_224"]
    assert failed["status"] == "failed"
    assert "has no feature maps at stride 4, 8" in failed["reason"]
    search = quantized["details"]["training"]["search"]
    assert search["winner"] == winner
    assert [one["outcome"] for one in search["entrants"]].count("winner") == 1
    assert search["saved_by_probe_core_hours"] > 0
    assert f"backbone-{loser}" in (tmp_path / "out" / "report.html").read_text()

    cards = [TrainingCard.read(path.parent) for path in (tmp_path / "cache").rglob("training_card.json")]
    card = next(card for card in cards if card.status == "ok")
    assert card.search is not None
    assert card.search.limits == ["max_p99 5000 ms", "max_size 1.00 kB"]

    record = json.loads((tmp_path / "out" / "run.json").read_text())
    compressed = ["export", "surgery", "{}", "engine", "benchmark"]
    expected = ["decide", "backbone", *(step.format(name) for name in ("int8", "fp16") for step in compressed)]
    assert [step["step"] for step in record["steps"] if step["rung"] == "backbone"] == expected
