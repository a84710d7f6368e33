"""`hasten amp`, as a person runs it: trained, stopped by Ctrl-C and taken up again, refused."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from tiny_job import command, environment, hasten, make_tiny_job

from components.core.contracts.training import TrainingCard
from fixtures.detectors import write_coco

pytestmark = pytest.mark.slow
TRAINING = {"batch": 2, "precision": "fp32", "checkpoint_every": "0.01 s"}


def start(place: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("amp", place / "job" / "job.yaml", *arguments),
        env=environment(place / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(tmp_path):
    make_tiny_job(tmp_path / "job", training=TRAINING | {"epochs": 200})
    out = tmp_path / "out"
    process = start(tmp_path, "--out", out)
    assert process.stderr is not None
    for line in process.stderr:  # it trains, and says so
        if line.startswith("amp: epoch "):
            break
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT
    last = log.strip().splitlines()[-1]
    assert last.startswith("hasten: amp: training stopped by SIGINT after step ")
    assert "the same command goes on from there (" in last
    assert "Traceback" not in log
    assert not out.exists()

    done = hasten(tmp_path / "cache", "amp", tmp_path / "job" / "job.yaml", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    card = TrainingCard.model_validate_json(done.stdout)
    assert len(card.resumed_at) == 1
    assert card.steps == card.planned_steps == 200
    assert card == TrainingCard.read(out)
    assert (out / "model" / "weights.safetensors").is_file()


def test_what_cannot_be_trained_is_one_line(tmp_path):
    (tmp_path / "job").mkdir()
    for split in ("train", "test"):
        write_coco(tmp_path / "job" / split, 2)
    make_onnx(tmp_path / "job" / "model.onnx")
    splits = {
        split: {"annotations": f"{split}/annotations.json", "images": f"{split}/images"} for split in ("train", "test")
    }
    fields = {
        "name": "given",
        "model": {"onnx": "model.onnx"},
        "data": splits,
        "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 96, 96]},
        "goal": {"min_speedup": "2x", "max_accuracy_drop": 1.0},
    }
    (tmp_path / "job" / "job.yaml").write_text(json.dumps(fields))
    done = hasten(tmp_path / "cache", "amp", tmp_path / "job" / "job.yaml", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("hasten: amp: skipped: a .onnx file holds a model for inference alone; give model.factory")
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("backbone",), ("run", "--rungs", "backbone")])
def test_a_candidate_that_nobody_knows_is_one_line_before_any_work(tmp_path, arguments):
    make_tiny_job(tmp_path / "job", backbone={"candidates": ["timm/resnet19"]})
    name, *rest = arguments
    done = hasten(tmp_path / "cache", name, tmp_path / "job" / "job.yaml", "--out", tmp_path / "out", *rest)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "hasten: backbone.candidates: timm has no model 'resnet19', did you mean timm/resnet18?"
    )
    assert not (tmp_path / "out").exists()


def make_onnx(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 96, 96])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [1, 3, 96, 96])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["same"])], "given", [image], [same])
    onnx.save(helper.make_model(graph), path)
