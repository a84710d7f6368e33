"""The rung `amp` in a whole run on a tiny detector: trained, compressed both ways, measured against the user's."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_job import command, environment, hasten, make_tiny_job

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

    # Every step of the rung is on its bill, with the processor time of the processes that it started.
    bill = bill_of(board, "amp")
    assert bill["steps"] == ["amp", "export", "surgery", "int8", "engine", "benchmark", "fp16", "engine", "benchmark"]
    assert bill["core_seconds"] >= card.core_seconds > 0
    assert bill["wall_seconds"] >= card.wall_seconds
    report = (place / "out" / "report.md").read_text()
    assert "## What it cost" in report

    # A stricter goal or another mode trains nothing anew, and what is not done anew costs nothing.
    again = board_of(place, "job.yaml", "again", "--rungs", "amp", "--mode", "exhaustive")
    assert {row["id"] for row in again["candidates"]} == {row["id"] for row in board["candidates"]}
    record = json.loads((place / "again" / "run.json").read_text())
    assert [step["state"] for step in record["steps"] if step["step"] == "amp"] == ["cached"]
    bill = bill_of(again, "amp")
    assert bill["steps"] == ["benchmark", "benchmark"]
    assert bill["cached"] == ["amp", "export", "surgery", "int8", "engine", "fp16", "engine"]


def bill_of(board: dict[str, Any], rung: str) -> dict[str, Any]:
    (bill,) = (bill for bill in board["ledger"]["rungs"] if bill["rung"] == rung)
    return bill


def changed(place: Path, name: str, **fields: Any) -> str:
    before = yaml.safe_load((place / "job" / "job.yaml").read_text())
    for key, value in fields.items():
        before[key] = before.get(key, {}) | value
    (place / "job" / name).write_text(yaml.safe_dump(before))
    return name


def test_a_budget_that_is_used_up_leaves_the_rung_out_with_the_reason(place):
    job = changed(place, "budget.yaml", budget={"max_core_time": "0.5 s"})
    done = hasten(place / "cache", "run", place / "job" / job, "--out", place / "budget", "--rungs", "amp")
    assert done.returncode == 3, done.stderr
    reason = "budget.max_core_time 0.5 s: 0.0 s left, and amp takes at least"
    assert f"rung amp: not climbed: {reason}" in done.stderr
    assert re.search(r"amp was not climbed \(budget.max_core_time .*what that saved is unknown", done.stdout)
    board = json.loads((place / "budget" / "leaderboard.json").read_text())
    (row,) = (row for row in board["candidates"] if row["rung"] == "amp")
    assert (row["id"], row["status"]) == ("amp", "skipped")
    assert row["reason"].startswith(reason)
    (left_out,) = board["ledger"]["not_climbed"]
    assert (left_out["rung"], left_out["wall_seconds"]) == ("amp", None)


def test_ctrl_c_while_training_keeps_a_checkpoint_and_the_same_command_goes_on(place):
    # In FP32 no precisions are compared first, which takes longer than the test.
    training = {"epochs": 5000, "checkpoint_every": "1 h", "precision": "fp32"}
    job = changed(place, "long.yaml", training=training)
    out = place / "long"
    arguments = ("run", place / "job" / job, "--out", out, "--rungs", "amp")
    process = subprocess.Popen(
        command(*arguments), env=environment(place / "cache"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not re.search(r'"epoch \d+/5000, loss', text_of(out / ".hasten" / "events.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=150)
    assert process.returncode == 130
    assert "stopping: writing a checkpoint; Ctrl-C again stops at once" in log
    assert log.strip().splitlines()[-1].startswith("hasten: stopped (SIGINT); the same command goes on where it stopp")
    (checkpoint,) = (place / "cache" / "training").glob("*.pt")
    (failed,) = re.findall(
        r"training stopped by SIGTERM after step (\d+) of 5000", text_of(out / ".hasten/events.jsonl")
    )

    # A limit is no part of what a checkpoint is of: this run goes on from it, and the limit ends it.
    changed(place, "long.yaml", training=training | {"max_time": "0.1 s"})
    done = hasten(place / "cache", *arguments)
    assert done.returncode == 3, done.stderr
    cards = [TrainingCard.read(path.parent) for path in (place / "cache").rglob("training_card.json")]
    (card,) = (card for card in cards if card.planned_steps == 5000)
    assert card.resumed_at == [int(failed)]
    assert card.reason == "training.max_time (0.1 s) is used up"
    assert not checkpoint.exists()


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_an_onnx_model_cannot_be_trained_and_the_row_says_why(place):
    (exported,) = sorted((place / "cache").rglob("stock.onnx"))[:1]
    (place / "job" / "model.onnx").write_bytes(exported.read_bytes())
    fields = yaml.safe_load((place / "job" / "job.yaml").read_text()) | {"model": {"onnx": "model.onnx"}}
    (place / "job" / "onnx.yaml").write_text(yaml.safe_dump(fields))
    board = board_of(place, "onnx.yaml", "onnx", "--rungs", "amp")
    (row,) = (row for row in board["candidates"] if row["rung"] == "amp")
    assert (row["id"], row["status"]) == ("amp", "skipped")
    assert row["reason"].startswith("a .onnx file holds a model for inference alone")
