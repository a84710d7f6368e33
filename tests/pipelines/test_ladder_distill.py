"""The rung `distill` in a whole run on a tiny detector: a student is taught, compressed and measured."""

import json
import re

import pytest
import yaml
from PIL import Image
from tiny_job import FACTORY, hasten, make_tiny_job

from components.core.contracts.training import TrainingCard
from fixtures.detectors import photograph

pytestmark = pytest.mark.slow
TRAINING = {"epochs": 2, "batch": 2, "precision": "fp32", "learning_rate": 0.001}


def test_a_student_is_compressed_both_ways_and_measured_against_the_users(tmp_path):
    distill = {"student": {"factory": FACTORY, "kwargs": {"seed": 3}}}
    goal = {"min_speedup": "100000x", "max_accuracy_drop": 1.0}
    job = make_tiny_job(tmp_path / "job", training=TRAINING, goal=goal, distill=distill)
    (tmp_path / "job" / "more").mkdir()
    for number in range(2):
        Image.fromarray(photograph(50 + number)).save(tmp_path / "job" / "more" / f"{number}.png")
    fields = yaml.safe_load(job.read_text())
    fields["data"]["unlabelled"] = {"images": "more"}
    job.write_text(yaml.safe_dump(fields))

    done = hasten(tmp_path / "cache", "run", job, "--out", tmp_path / "out", "--json", "--rungs", "distill")
    assert done.returncode == 3, done.stderr  # no model of this size is as fast as that
    board = json.loads(done.stdout)
    rows = {row["id"]: row for row in board["candidates"] if row["rung"] == "distill"}
    assert set(rows) == {"distill-surgery-onnxruntime", "distill-int8-onnxruntime", "distill-fp16-onnxruntime"}
    quantized = rows["distill-int8-onnxruntime"]
    assert quantized["status"] == "ok", quantized["reason"]
    assert (quantized["techniques"][0], quantized["techniques"][-1]) == ("distill", "int8")
    training = quantized["details"]["training"]
    assert (training["rung"], training["lessons"]["unlabelled"], training["steps"]) == ("distill", 2, 4)
    (card_file,) = (tmp_path / "cache").rglob("training_card.json")
    assert TrainingCard.read(card_file.parent).weights_sha256 == training["weights_sha256"]
    events = (tmp_path / "out" / ".hasten" / "events.jsonl").read_text()
    assert re.search(r'"step": "distill", "state": "progress", "message": "asking teacher 1"', events)
    assert re.search(r'"step": "distill", "state": "progress", "message": "epoch 2/2, loss [0-9.]+, .* left"', events)

    # Another temperature teaches anew; the user's model is not exported again, and the teacher is not asked.
    fields["distill"]["temperature"] = 2.0
    job.write_text(yaml.safe_dump(fields))
    again = hasten(tmp_path / "cache", "run", job, "--out", tmp_path / "again", "--json", "--rungs", "distill")
    assert again.returncode == 3, again.stderr
    states = {
        (step["rung"], step["step"]): step["state"]
        for step in json.loads((tmp_path / "again" / "run.json").read_text())["steps"]
    }
    assert (states["", "fetch"], states["", "export"], states["distill", "distill"]) == ("cached", "cached", "done")
    row = next(row for row in json.loads(again.stdout)["candidates"] if row["id"] == "distill-int8-onnxruntime")
    lessons = row["details"]["training"]["lessons"]
    assert lessons["answers_reused"] == lessons["answers"] == 5
