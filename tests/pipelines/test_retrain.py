"""Retraining on a tiny detector: better data are promoted, poisoned labels are not, and the way back is exact."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_job import hasten

from components.amp.run import run_amp
from components.core.job_file import read_job
from components.fetch.run import run_fetch
from fixtures.detectors import SIDE
from fixtures.scenes import FACTORY, poison, untrained, write_scene

pytestmark = pytest.mark.slow


def write_job(folder: Path, name: str, **changes: Any) -> Path:
    fields: dict[str, Any] = {
        "name": "things",
        "model": {"factory": FACTORY, "kwargs": {"num_classes": 3}, "weights": "weights.safetensors"},
        "data": {
            split: {"annotations": f"data/{split}/annotations.json", "images": f"data/{split}/images"}
            for split in ("train", "test")
        },
        "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, SIDE, SIDE], "threads": 1},
        # INT8 meets it, however busy the machine is; what is judged here is the challenge.
        "goal": {"max_size": "200 kB", "max_accuracy_drop": 1.0},
        "ladder": {"rungs": ["int8"]},
        "budget": {"rounds": 3, "round_time": "0.05 s", "control_images": 0, "calibration_time": "0.1 s"},
        "training": {"epochs": 9, "batch": 4, "learning_rate": 0.004, "precision": "fp32"},
        "publish": {"to": "file://published"},
        "retrain": {"max_slowdown": "20x", "resamples": 400},
    }
    path = folder / name
    path.write_text(yaml.safe_dump(fields | changes))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job whose model was trained on eight pictures, and is in production."""
    folder = tmp_path_factory.mktemp("retrain")
    untrained(folder / "weights.pt")
    write_scene(folder / "data" / "train", 8, seed=1)
    write_scene(folder / "data" / "test", 24, seed=9)
    training = {"epochs": 24, "batch": 4, "learning_rate": 0.004, "precision": "fp32"}
    model = {"factory": FACTORY, "kwargs": {"num_classes": 3}, "weights": "weights.pt"}
    first = read_job(write_job(folder, "first.yaml", model=model, training=training))
    run_fetch(first, folder / "bundle")
    card, _ = run_amp(first, folder / "bundle", folder / "trained")
    assert card.status == "ok", card.reason
    shutil.copy(folder / "trained" / "model" / "weights.safetensors", folder)
    done = hasten(folder / "cache", "run", write_job(folder, "job.yaml"), "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


def production(place: Path) -> dict[str, Any]:
    pointer: dict[str, Any] = json.loads((place / "published" / "things" / "production.json").read_text())
    return pointer


def files(place: Path, version: str) -> dict[str, bytes]:
    folder = place / "published" / "things" / "versions" / version
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def retrain(place: Path, code: int) -> dict[str, Any]:
    done = hasten(place / "cache", "retrain", place / "job.yaml", "--out", place / "again", "--json")
    assert done.returncode == code, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    assert json.loads((place / "again" / "retrain.json").read_text()) == outcome
    assert json.loads((place / "again" / "run.json").read_text())["stage"] == "finished"
    return outcome


def new_data(place: Path, count: int, seed: int) -> Path:
    shutil.rmtree(place / "data" / "train")
    write_scene(place / "data" / "train", count, seed)
    return place / "data" / "train"


def test_better_data_are_promoted_poisoned_labels_are_not_and_rollback_is_exact(place: Path) -> None:
    first = production(place)["version"]
    before = files(place, first)

    # Nothing new: nothing is trained.
    outcome = retrain(place, 3)
    assert (outcome["verdict"], outcome["stage"]) == ("keep", "data")
    assert outcome["reason"] == f"nothing was trained: there are no new data since version {first} was trained"

    new_data(place, 36, seed=2)
    outcome = retrain(place, 0)
    assert (outcome["verdict"], outcome["champion"]) == ("promote", first), outcome["reason"]
    second = production(place)["version"]
    assert outcome["published_uri"].endswith(f"/versions/{second}")
    gain = outcome["challenge"]["accuracy"]
    assert outcome["challenge"]["champion"]["accuracy"] < 0.5 < outcome["challenge"]["challenger"]["accuracy"]
    assert 0 < gain["ci_low"] <= gain["value"] <= gain["ci_high"]
    assert outcome["challenge"]["images"] == 24
    # What was promoted can be trained again, and says whom it beat.
    evidence = {Path(path).name: content for path, content in files(place, second).items() if "evidence" in path}
    assert json.loads(evidence["provenance.json"])["replaced"] == first
    assert json.loads(evidence["retrain.json"])["champion"] == first
    assert json.loads(evidence["record.json"])["train"]["images"] == 36
    steps = {step["step"]: step["state"] for step in json.loads((place / "again" / "run.json").read_text())["steps"]}
    assert steps["challenge"] == steps["publish"] == steps["conclude"] == "done"

    # Every box and label is a likely one, and each is on the wrong picture: nothing shows in the statistics.
    poison(new_data(place, 36, seed=3))
    outcome = retrain(place, 3)
    assert (outcome["verdict"], outcome["stage"], outcome["champion"]) == ("keep", "challenge", second)
    assert outcome["reason"].startswith("less accurate than the champion: mAP50 0."), outcome["reason"]
    assert outcome["challenge"]["accuracy"]["ci_high"] < 0
    assert production(place)["version"] == second

    done = hasten(place / "cache", "rollback", place / "job.yaml")
    assert (done.returncode, done.stdout) == (0, f"in production: {first} (withdrawn: {second})\n"), done.stderr
    assert production(place)["version"] == first
    assert files(place, first) == before
