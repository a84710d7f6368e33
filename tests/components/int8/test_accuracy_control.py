import itertools
import json
import shutil

import onnx
import pytest
from hard_detector import SIDE, hard_detector, write_cells

from components.core.contracts.job import Job, Runtime
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import UserError
from components.core.runtimes.interface import load_session
from components.core.tasks.detection import fit, read_split
from components.engine.build import build_engine
from components.int8.accuracy_control import control_accuracy
from components.int8.calibration import read_calibration_set
from components.int8.run import run_int8
from components.int8.sensitivity import Blame

RUNTIMES = [Runtime.OPENVINO, Runtime.ONNXRUNTIME, Runtime.TENSORRT_RTX]


def make(folder, runtimes=RUNTIMES, model=None, **budget):
    """A job on the hard detector, its bundle and what surgery would hand on."""
    job = Job.model_validate(
        {
            "name": "hard",
            "model": {"onnx": "model.onnx"},
            "data": {split: {"annotations": "a.json", "images": "images"} for split in ("train", "test")},
            "target": {"runtimes": runtimes, "input_shape": [1, 3, SIDE, SIDE], "threads": 1},
            "goal": {"min_speedup": "1.1x", "max_accuracy_drop": 0.02, "metric": "map"},
            "budget": {"calibration_images": 8, "control_images": 12} | budget,
        }
    )
    bundle, surgered = folder / "bundle", folder / "surgered"
    write_cells(bundle / "data" / "train", 24)
    surgered.mkdir()
    onnx.save(model or hard_detector(), surgered / "model.onnx")
    variants = [
        Variant(id=f"surgery-{one}", runtime=one, techniques=["surgery"], file="model.onnx") for one in runtimes
    ]
    Manifest(task=job.task, input_shape=job.target.input_shape, variants=variants).write(surgered)
    return job, bundle, surgered


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hard")
    job, bundle, surgered = make(folder)
    manifest = run_int8(job, surgered, bundle, folder / "out")
    return job, bundle, folder / "out", {variant.id: variant for variant in manifest.variants}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_head_that_collapses_comes_back_within_the_goal(quantized, runtime):
    _, _, out, rows = quantized
    plain, accurate = rows[f"int8-{runtime}"], rows[f"int8-accurate-{runtime}"]
    assert plain.status is accurate.status is Status.OK
    facts = accurate.details["int8"]["accuracy"]
    assert facts["fp32"] > 0.99
    assert facts["int8"] < 0.5, "the case is a hard one"
    assert facts["reached"] >= facts["wanted"] == pytest.approx(facts["fp32"] - 0.01)
    names = " ".join(one["layer"] for one in facts["restored"])
    assert "look" in names or "mix" in names, "the outlier lies between these two"
    assert "stem" not in names
    assert "head" not in names
    assert accurate.reason.startswith(f"{len(facts['restored'])} layers back in floating point")
    assert (out / accurate.file).is_file()


@pytest.mark.parametrize("runtime", RUNTIMES[:2])
def test_the_file_itself_finds_what_int8_lost(quantized, runtime):
    _, bundle, out, rows = quantized
    split = read_split(bundle / "data/train/annotations.json", bundle / "data/train/images")
    truth = {(one["image_id"], *one["bbox"][:2]) for one in split.document["annotations"]}
    found = {}
    for name in (f"int8-{runtime}", f"int8-accurate-{runtime}"):
        session = load_session(rows[name], out, None, None, 1)
        found[name] = set()
        for image in split.images:
            (seen,) = session.run(fit(image.load(), SIDE, SIDE)[0])
            found[name] |= {(image.id, *box[:2]) for box in seen.boxes[seen.scores > 0.5].tolist()}
    assert found[f"int8-accurate-{runtime}"] == truth
    assert found[f"int8-{runtime}"] != truth


def test_tensorrt_runs_all_but_the_restored_layers_in_int8(quantized, tmp_path):
    _, _, out, rows = quantized
    row = rows["int8-accurate-tensorrt-rtx"]
    card = build_engine(Runtime.TENSORRT_RTX, out / row.file, tmp_path / "e.engine")
    restored = {one["layer"] for one in row.details["int8"]["accuracy"]["restored"]}
    assert restored
    assert set(row.details["int8"]["fp16_layers"]) <= restored
    assert card.precisions == {"INT8": 4 - len(restored), "HALF": len(restored)}


def test_the_card_tells_what_was_tried_on_what(quantized):
    _, _, out, _ = quantized
    card = json.loads((out / "int8_card.json").read_text())
    calibration = card["calibration"]
    assert (calibration["seed"], len(calibration["ids"]), len(calibration["sha256"])) == (7, 8, 64)
    assert not set(calibration["held_out"]) & set(calibration["names"])
    tried = card["models"]["int8-onnxruntime"]["calibrator"]
    assert set(tried["tried"]) == {"min-max", "percentile", "mse", "entropy"}
    assert tried["tried"][tried["chosen"]] == max(tried["tried"].values())
    assert set(card["models"]["int8-openvino"]["calibrator"]["tried"]) == {"default", "min-max", "mse", "percentile"}
    assert card["models"]["int8-onnxruntime"]["accuracy"]["images"] == 12
    assert card["models"]["int8-onnxruntime"]["accuracy"]["seen_in_calibration"] == 0


def test_an_easy_model_is_left_alone(tmp_path):
    job, bundle, surgered = make(tmp_path, [Runtime.ONNXRUNTIME], hard_detector(outlier=1.0))
    manifest = run_int8(job, surgered, bundle, tmp_path / "out")
    assert [variant.id for variant in manifest.variants] == ["surgery-onnxruntime", "int8-onnxruntime"]
    assert manifest.variants[1].details["int8"]["accuracy"]["restored"] == []


def test_without_time_only_the_first_calibrator_is_tried(tmp_path):
    job, bundle, surgered = make(tmp_path, [Runtime.ONNXRUNTIME], calibration_time="0.001 s", control_images=0)
    manifest = run_int8(job, surgered, bundle, tmp_path / "out")
    facts = manifest.variants[1].details["int8"]
    assert list(facts["calibrator"]["tried"]) == ["min-max"]
    assert facts["calibrator"]["not_tried_for_time"] == ["percentile", "mse", "entropy"]
    assert facts["accuracy"]["note"].startswith("not controlled")


def test_a_set_that_is_too_small_or_all_alike_is_called_so(tmp_path):
    job, bundle, _ = make(tmp_path)
    folder = bundle / "data" / "train"
    for path in (folder / "images").iterdir():
        if path.name != "000.png":
            shutil.copy(folder / "images" / "000.png", path)
    text = " ".join(read_calibration_set(job, bundle).warnings)
    assert "the calibration set has 8 images" in text
    assert "7 of 8 calibration images are copies" in text
    from PIL import Image

    for path in (folder / "images").iterdir():
        Image.new("RGB", (SIDE, SIDE), (9, 9, 9)).save(path)
    assert "8 of 8 calibration images have one value" in " ".join(read_calibration_set(job, bundle).warnings)
    document = json.loads((folder / "annotations.json").read_text())
    (folder / "annotations.json").write_text(json.dumps(document | {"annotations": []}))
    assert "calibration images: none has a box" in " ".join(read_calibration_set(job, bundle).warnings)
    (folder / "annotations.json").write_text(json.dumps(document | {"images": []}))
    with pytest.raises(UserError, match="no images"):
        read_calibration_set(job, bundle)


def ranked(count):
    return [Blame(f"layer{number}", 10.0 + number) for number in range(count)]


def test_the_fewest_layers_are_restored_and_each_is_accounted_for():
    needed = {"layer2", "layer5"}
    asked = []

    def measure(restored):
        asked.append(set(restored))
        return 0.5 + 0.2 * len(needed & set(restored))

    found = control_accuracy(ranked(40), measure, 0.9, 0.5, 0.05, 60)
    assert {one.unit for one in found.restored} == needed
    assert [one.accuracy_without for one in found.restored] == [pytest.approx(0.7)] * 2
    assert found.recovered
    assert found.card()["restored"][0]["brought_back"] == pytest.approx(0.2)
    assert len(asked) < 15


def test_a_goal_that_is_out_of_reach_keeps_the_best():
    found = control_accuracy(ranked(5), lambda restored: 0.6 if len(restored) == 4 else 0.55, 0.9, 0.5, 0.05, 60)
    assert not found.recovered
    assert found.reached == 0.6
    assert len(found.restored) == 4
    assert "all 5 layers" in found.note


def test_time_that_is_over_ends_the_search(monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr("components.int8.accuracy_control.time.monotonic", lambda: next(clock))
    found = control_accuracy(ranked(64), lambda restored: 0.1, 0.9, 0.1, 0.05, 25)
    assert len(found.trials) <= 3
    assert "time ended" in found.note
