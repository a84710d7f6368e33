"""The rung `amp` in a whole run on a tiny detector: trained, compressed both ways, measured against the user's."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_job import hasten, make_tiny_job

from components.core.contracts.training import TrainingCard

pytestmark = pytest.mark.slow
TRAINING = {"epochs": 2, "batch": 2, "precision": "fp16", "learning_rate": 0.001}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("amp")
    make_tiny_job(folder / "job", training=TRAINING, goal={"min_speedup": "100000x", "max_accuracy_drop": 1.0})
    return folder


def board_of(place: Path, job: str, out: str, *arguments: str) -> dict[str, Any]:
    done = hasten(place / "cache", "run", place / "job" / job, "--out", place / out, "--json", *arguments)
    assert done.returncode == 3, done.stderr  # no model of this size is as fast as that
    board: dict[str, Any] = json.loads(done.stdout)
    return board


def test_a_trained_model_is_compressed_both_ways_and_measured_against_the_users(place):
    board = board_of(place, "job.yaml", "out", "--rungs", "amp")
    rows = {row["id"]: row for row in board["candidates"] if row["rung"] == "amp"}
    assert set(rows) == {"amp-surgery-onnxruntime", "amp-int8-onnxruntime", "amp-fp16-onnxruntime"}
    quantized = rows["amp-int8-onnxruntime"]
    assert quantized["status"] == "ok", quantized["reason"]
    assert quantized["techniques"][0] == "amp"
    assert quantized["techniques"][-1] == "int8"
    assert quantized["speedup"]["ratio"] > 0
    assert rows["amp-fp16-onnxruntime"]["status"] == "skipped"  # as of the user's own model, in this runtime
    training = quantized["details"]["training"]
    assert (training["rung"], training["precision"], training["steps"]) == ("amp", "fp16", 2)
    assert board["baseline"] == "eager"

    # What training left behind is the bundle that the rows were made of.
    (card_file,) = (place / "cache").rglob("training_card.json")
    card = TrainingCard.read(card_file.parent)
    assert card.weights_sha256 == training["weights_sha256"]
    assert card.step_speedup is not None
    assert card.loss_scales

    steps = [(step["rung"], step["step"]) for step in json.loads((place / "out" / "run.json").read_text())["steps"]]
    compressed = ["export", "surgery", "{}", "engine", "benchmark"]
    expected = ["decide", "amp", *(step.format(name) for name in ("int8", "fp16") for step in compressed)]
    assert [step for rung, step in steps if rung == "amp"] == expected
    states = {
        (step["rung"], step["step"]): step["state"]
        for step in json.loads((place / "out" / "run.json").read_text())["steps"]
    }
    assert states["amp", "amp"] == "done"
    events = (place / "out" / ".hasten" / "events.jsonl").read_text()
    assert re.search(r'"step": "amp", "state": "progress", "message": "epoch 2/2, loss [0-9.]+, .* left"', events)

    # A stricter goal or another mode trains nothing anew.
    again = board_of(place, "job.yaml", "again", "--rungs", "amp", "--mode", "exhaustive")
    assert {row["id"] for row in again["candidates"]} == {row["id"] for row in board["candidates"]}
    record = json.loads((place / "again" / "run.json").read_text())
    assert [step["state"] for step in record["steps"] if step["step"] == "amp"] == ["cached"]


def test_an_onnx_model_cannot_be_trained_and_the_row_says_why(place):
    (exported,) = sorted((place / "cache").rglob("stock.onnx"))[:1]
    (place / "job" / "model.onnx").write_bytes(exported.read_bytes())
    fields = yaml.safe_load((place / "job" / "job.yaml").read_text()) | {"model": {"onnx": "model.onnx"}}
    (place / "job" / "onnx.yaml").write_text(yaml.safe_dump(fields))
    board = board_of(place, "onnx.yaml", "onnx", "--rungs", "amp")
    (row,) = (row for row in board["candidates"] if row["rung"] == "amp")
    assert (row["id"], row["status"]) == ("amp", "skipped")
    assert row["reason"].startswith("a .onnx file holds a model for inference alone")
