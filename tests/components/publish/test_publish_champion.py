"""What retraining needs of a store: the record that goes along, the champion that is taken out, a guarded promotion."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.core.contracts.champion import FILES, Champion
from components.core.contracts.job import Job
from components.core.contracts.leaderboard import MADE_OF, Leaderboard
from components.core.errors import StepError, UserError
from components.core.files import sha256_file
from components.fetch.run import run_fetch
from components.publish.champion import current_version, take_champion
from components.publish.pointer import read_production
from components.publish.provenance import Provenance
from components.publish.rollback import run_rollback
from components.publish.run import run_publish
from components.publish.store import Store, open_store
from fixtures.published import make_board, make_job, make_report
from fixtures.scenes import write_scene
from fixtures.seaweedfs import S3Server


@pytest.fixture(params=["file", "s3"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    """A job with real data that publishes to an empty place, on each kind of store."""
    if request.param == "file":
        to = (tmp_path / "models").as_uri()
    else:
        server: S3Server = request.getfixturevalue("s3")
        to = f"s3://{server.new_bucket()}/models"
    for split, count in (("train", 6), ("test", 3)):
        write_scene(tmp_path / split, count, seed=count)
    (tmp_path / "weights.pt").write_bytes(b"the weights")
    split = {name: {"annotations": str(tmp_path / name / "annotations.json"), "images": str(tmp_path / name / "images")}
             for name in ("train", "test")}  # fmt: skip
    fields = make_job(to).model_dump(mode="json", exclude_none=True) | {
        "model": {"factory": "user_models:detector", "kwargs": {"classes": 3}, "weights": str(tmp_path / "weights.pt")},
        "data": split,
        "retrain": {},
    }
    fields["goal"] = {"min_speedup": "2x", "max_accuracy_drop": 0.02}
    return Job.model_validate(_with_units(fields))


def _with_units(fields: dict[str, Any]) -> dict[str, Any]:
    """A dumped job is read again as it is."""
    return json.loads(json.dumps(fields))


def store_of(job: Job) -> Store:
    assert job.publish is not None
    return open_store(job.publish, job.name)


def board_of(job: Job, folder: Path, seed: int) -> Leaderboard:
    """A board whose winner was made of the bundle that `fetch` makes of the job."""
    if not (folder / "bundle").exists():
        run_fetch(job, folder / "bundle")
    board = make_board(folder / f"m{seed}", seed)
    rows = [row.model_copy(update={"details": {MADE_OF: str(folder / "bundle")}}) for row in board.candidates]
    return board.model_copy(update={"candidates": rows})


def published(job: Job, folder: Path, seed: int, replaces: str = "", outcome: str = "") -> str:
    report = make_report(folder / f"r{seed}", str(seed))
    (report / "leaderboard.json").write_text(board_of(job, folder, seed).model_dump_json())
    provenance = Provenance(run_id="r", replaced=replaces)
    uri = run_publish(job, board_of(job, folder, seed), report, provenance, outcome=outcome)
    return uri.rpartition("/")[2]


def test_the_champion_comes_back_with_its_weights_and_the_statistics_of_its_data(job: Job, tmp_path: Path) -> None:
    version = published(job, tmp_path, 1)
    assert current_version(job) == version
    card = take_champion(job, version, tmp_path / "taken")
    assert card == Champion.read(tmp_path / "taken")
    assert (card.version, card.accuracy) == (version, 0.41)
    assert card.record is not None
    assert (card.record.train.images, card.record.test.images) == (6, 3)
    assert card.record.train.categories == {1: "bright", 2: "dark"}
    assert card.weights is not None
    assert (tmp_path / "taken" / card.weights).read_bytes() == b"the weights"
    model = tmp_path / "taken" / FILES / str(card.variant.file)
    assert sha256_file(model) == sha256_file(tmp_path / "m1" / "m.onnx")


def test_another_factory_does_not_get_the_champions_weights(job: Job, tmp_path: Path) -> None:
    version = published(job, tmp_path, 1)
    other = job.model_copy(update={"model": job.model.model_copy(update={"kwargs": {"classes": 4}})})
    assert take_champion(other, version, tmp_path / "taken").weights is None


def test_a_job_without_retraining_publishes_no_weights(job: Job, tmp_path: Path) -> None:
    plain = job.model_copy(update={"retrain": None})
    version = published(plain, tmp_path, 1)
    card = take_champion(plain, version, tmp_path / "taken")
    assert (card.record, card.weights) == (None, None)
    assert not list((tmp_path / "taken").rglob("weights*"))


def test_a_damaged_version_is_not_taken(tmp_path: Path) -> None:
    job = make_job((tmp_path / "models").as_uri())
    with pytest.raises(UserError, match=r"nothing is published there yet.*publish a first version with `hasten run`"):
        current_version(job)
    report = make_report(tmp_path / "r")
    (report / "leaderboard.json").write_text(make_board(tmp_path / "m").model_dump_json())
    version = run_publish(job, make_board(tmp_path / "m"), report).rpartition("/")[2]
    model = next((tmp_path / "models").rglob("model.onnx"))
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(StepError, match=r"model\.onnx is missing or not what was published; `hasten rollback`"):
        take_champion(job, version, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_only_the_version_that_lost_is_replaced_and_the_verdict_goes_along(job: Job, tmp_path: Path) -> None:
    first = published(job, tmp_path, 1)
    second = published(job, tmp_path, 2, replaces=first, outcome='{"verdict": "promote"}')
    taken = take_champion(job, second, tmp_path / "taken")
    evidence = (tmp_path / "taken" / str(taken.weights)).parent.parent
    assert json.loads((evidence / "retrain.json").read_text()) == {"verdict": "promote"}
    assert json.loads((evidence / "provenance.json").read_text())["replaced"] == first
    with pytest.raises(StepError, match=f"{second} went into production meanwhile, in place of {first}; run again"):
        published(job, tmp_path, 3, replaces=first)
    assert current_version(job) == second


def test_what_a_rollback_withdrew_is_not_promoted_again_by_itself(job: Job, tmp_path: Path) -> None:
    first = published(job, tmp_path, 1)
    second = published(job, tmp_path, 2, replaces=first)
    run_rollback(store_of(job))
    assert published(job, tmp_path, 2, replaces=first) == ""
    assert current_version(job) == first
    assert published(job, tmp_path, 2) == second  # a person may
    production = read_production(store_of(job))
    assert production is not None
    assert production.withdrawn == set()
