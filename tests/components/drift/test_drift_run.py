"""New data against the champion's: what is refused, what is only noted, and in which words."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core.contracts.champion import CHAMPION, Champion, Outcome, TrainingRecord, Verdict
from components.core.contracts.job import Job, ModelSource, Retrain, Runtime
from components.core.contracts.variant import Variant
from components.core.errors import UserError
from components.core.tasks.detection_statistics import statistics_of
from components.drift.card import DataCard, Grade, markdown
from components.drift.run import run_drift
from components.fetch.run import run_fetch
from fixtures.jobs import make_job
from fixtures.scenes import poison, write_scene

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "weights.pt").write_bytes(b"not opened here")
    return make_job(tmp_path, retrain={})


def bundle(job: Job, folder: Path, seed: int, count: int = 60, change: Change = lambda document: None) -> Path:
    """What `fetch` makes of a scene whose training annotations were changed."""
    for split, number, random in (("train", count, seed), ("test", 12, 99)):
        shutil.rmtree(folder / split, ignore_errors=True)
        write_scene(folder / split, number, random)
    path = folder / "train" / "annotations.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    run_fetch(job, folder / f"bundle-{seed}")
    return folder / f"bundle-{seed}"


def champion(folder: Path, made_of: Path | None) -> Path:
    """A champion that was trained on a bundle; None: one without a record."""
    record = None
    if made_of is not None:
        card = json.loads((made_of / "fetch_card.json").read_text())
        train, test = (
            statistics_of(
                json.loads((made_of / "data" / split / "annotations.json").read_text()),
                card[split]["annotations_sha256"],
                card[split]["images_sha256"],
            )
            for split in ("train", "test")
        )
        model = ModelSource(factory="a:b", weights="weights.pt")
        record = TrainingRecord(model=model, weights_sha256="0", train=train, test=test)
    card = Champion(
        version="abc",
        uri="file:///x",
        variant=Variant(id="champion", runtime=Runtime.ONNXRUNTIME, techniques=[]),
        record=record,
    )
    (folder / "champion").mkdir(exist_ok=True)
    (folder / "champion" / CHAMPION).write_text(card.model_dump_json())
    return folder / "champion"


def compared(
    job: Job, folder: Path, change: Change = lambda document: None, count: int = 60
) -> tuple[DataCard, Outcome]:
    """New data, changed, against a champion of the same kind of scene."""
    holder = champion(folder, bundle(job, folder, seed=1))
    new = bundle(job, folder, seed=2, count=count, change=change)
    return run_drift(job, new, holder, folder / "card")


def test_new_data_of_the_same_kind_are_trained_on(job: Job, tmp_path: Path) -> None:
    card, outcome = compared(job, tmp_path)
    assert (outcome.verdict, outcome.champion) == (Verdict.PROMOTE, "abc")
    assert not card.refusals
    assert DataCard.model_validate_json((tmp_path / "card" / "data_card.json").read_text()) == card
    assert card.train.images == 60
    assert (tmp_path / "card" / "data_card.md").read_text() == markdown(card)
    assert "| labels, train | ok |" in markdown(card)


def test_the_champions_own_data_are_nothing_new(job: Job, tmp_path: Path) -> None:
    own = bundle(job, tmp_path, seed=1)
    _, outcome = run_drift(job, own, champion(tmp_path, own), tmp_path / "card")
    assert outcome.verdict is Verdict.KEEP
    assert outcome.reason == "nothing was trained: there are no new data since version abc was trained"


def one_label(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["category_id"] = 1


def shrink(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, width / 4, height / 4]


def corner(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["bbox"][:2] = [0, 0]


def flatten(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        x, y, _, height = annotation["bbox"]
        annotation["bbox"] = [x, y, min(4 * height, 96 - x), height / 4]


def thin_out(document: dict[str, Any]) -> None:
    document["annotations"] = document["annotations"][::3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_label, r"in train, \d+% of the labels are others, more than the 25% allowed"),
        (shrink, r"in train, \d+% of the boxes are of another size, more than the 25% allowed"),
        (corner, r"in train, \d+% of the boxes are elsewhere across the image"),
        (flatten, r"in train, \d+% of the boxes are of another shape"),
        (thin_out, r"train has \d+ boxes, the champion's had \d+; at least [\d.]+ wanted"),
    ],
)
def test_other_distributions_are_refused_by_name(job: Job, tmp_path: Path, change: Change, words: str) -> None:
    _, outcome = compared(job, tmp_path, change)
    assert outcome.verdict is Verdict.KEEP
    assert outcome.reason.startswith("nothing was trained: ")
    assert re.search(words, outcome.reason), outcome.reason


def test_other_categories_are_refused(job: Job, tmp_path: Path) -> None:
    _, outcome = compared(job, tmp_path, lambda document: document["categories"].append({"id": 3, "name": "grey"}))
    expected = "the categories of train are 1 bright, 2 dark, 3 grey; the champion knows 1 bright, 2 dark"
    assert outcome.reason == f"nothing was trained: {expected}"


def test_far_fewer_images_are_refused(job: Job, tmp_path: Path) -> None:
    _, outcome = compared(job, tmp_path, count=20)
    assert "train has 20 images, the champion's had 60; at least 30 wanted" in outcome.reason


def test_labels_on_the_wrong_image_show_in_no_statistic(job: Job, tmp_path: Path) -> None:
    """Why the challenge is needed."""
    write_scene(tmp_path / "poisoned", 60, 2)
    poison(tmp_path / "poisoned")
    text = json.loads((tmp_path / "poisoned" / "annotations.json").read_text())
    _, outcome = compared(job, tmp_path, lambda document: document.update(text))
    assert outcome.verdict is Verdict.PROMOTE


def test_a_few_images_are_not_drift_when_chance_explains_them(job: Job, tmp_path: Path) -> None:
    strict = job.model_copy(update={"retrain": Retrain(max_drift=0.001, max_shrinkage=1.0)})
    holder = champion(tmp_path, bundle(job, tmp_path, seed=1, count=8))
    new = bundle(job, tmp_path, seed=5, count=8)
    card, outcome = run_drift(strict, new, holder, tmp_path / "card")
    far = [check for check in card.checks if "by chance up to" in check.found]
    assert any(not check.found.startswith("0.0%") for check in far)
    assert outcome.verdict is Verdict.PROMOTE, outcome.reason


def test_test_images_among_those_to_train_on_are_refused(job: Job, tmp_path: Path) -> None:
    holder = champion(tmp_path, bundle(job, tmp_path, seed=1))
    new = bundle(job, tmp_path, seed=2)
    fetched = json.loads((new / "fetch_card.json").read_text())
    (new / "fetch_card.json").write_text(json.dumps(fetched | {"shared_images": 3}))
    _, outcome = run_drift(job, new, holder, tmp_path / "card")
    assert outcome.reason.endswith("3 images of test are in train too, so that the test would say nothing")
    allowed = job.model_copy(update={"retrain": Retrain(max_shared_images=3)})
    assert run_drift(allowed, new, holder, tmp_path / "card")[1].verdict is Verdict.PROMOTE


def test_a_champion_without_a_record_is_noted_and_not_compared(job: Job, tmp_path: Path) -> None:
    card, outcome = run_drift(job, bundle(job, tmp_path, seed=2), champion(tmp_path, None), tmp_path / "card")
    assert outcome.verdict is Verdict.PROMOTE
    (noted,) = [check for check in card.checks if check.grade is Grade.NOTED]
    assert noted.found == "version abc has no record of its data"


def test_a_job_without_limits_is_refused(job: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"retrain: the job has no such section; add `retrain: \{\}`"):
        run_drift(job.model_copy(update={"retrain": None}), tmp_path, tmp_path, tmp_path)
