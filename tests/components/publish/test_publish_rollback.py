"""Back to an older version, byte for byte, on both kinds of store."""

import json
from pathlib import Path

import pytest

from components.core.contracts.job import Job
from components.core.errors import StepError, UserError
from components.publish.file_store import FileStore
from components.publish.pointer import point_to, read_production
from components.publish.records import Production, Release
from components.publish.rollback import list_versions, run_rollback
from components.publish.run import run_publish
from components.publish.store import Store, open_store
from fixtures.published import check_version, make_board, make_job, make_report, reader
from fixtures.seaweedfs import S3Server
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS

assert COMMANDS


@pytest.fixture(params=["file", "s3"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    if request.param == "file":
        return make_job((tmp_path / "models").as_uri())
    server: S3Server = request.getfixturevalue("s3")
    return make_job(f"s3://{server.new_bucket()}/team/models")


@pytest.fixture
def store(job: Job) -> Store:
    assert job.publish is not None
    return open_store(job.publish, job.name)


def published(job: Job, folder: Path, seed: int) -> str:
    uri = run_publish(job, make_board(folder / f"m{seed}", seed), make_report(folder / f"r{seed}", str(seed)))
    return uri.rpartition("/")[2]


def content(store: Store, version: str) -> dict[str, bytes]:
    manifest = check_version(reader(store), version)
    read = reader(store)
    paths = ["manifest.json", *(file.path for file in manifest.files)]
    return {path: read(f"versions/{version}/{path}") or b"" for path in paths}


def current(store: Store) -> Production:
    production = read_production(store)
    assert production is not None
    return production


def test_the_version_before_comes_back_byte_for_byte(job: Job, store: Store, tmp_path: Path) -> None:
    first = published(job, tmp_path, 1)
    before, pointer = content(store, first), current(store)
    second = published(job, tmp_path, 2)
    assert current(store).version == second
    moved = run_rollback(store)
    assert moved == current(store)
    assert (moved.version, moved.manifest_sha256) == (first, pointer.manifest_sha256)
    assert moved.previous == second
    assert content(store, first) == before
    check_version(reader(store), second)  # what left is still there


def test_going_back_again_goes_further_back_and_never_to_what_was_withdrawn(
    job: Job, store: Store, tmp_path: Path
) -> None:
    one, two, three = (published(job, tmp_path, seed) for seed in (1, 2, 3))
    assert run_rollback(store).version == two
    assert run_rollback(store).version == one
    assert current(store).withdrawn == {two, three}
    with pytest.raises(UserError, match=f"no version before {one} to go back to; --to takes one of") as refused:
        run_rollback(store)
    assert two in str(refused.value)
    assert run_rollback(store, three).version == three  # by name, everything goes
    assert current(store).withdrawn == {one, two}
    assert [(each.version, each.state) for each in list_versions(store)] == [
        (three, "in production"),
        (one, "withdrawn"),
        (two, "withdrawn"),
    ]


def test_publishing_a_withdrawn_version_anew_takes_the_mark_away(job: Job, store: Store, tmp_path: Path) -> None:
    published(job, tmp_path, 1)
    second = published(job, tmp_path, 2)
    run_rollback(store)
    assert published(job, tmp_path, 2) == second
    assert current(store).withdrawn == set()
    published(job, tmp_path, 3)
    assert run_rollback(store).version == second


def test_what_cannot_be_gone_back_to_is_refused(job: Job, store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is in production there"):
        run_rollback(store)
    first = published(job, tmp_path, 1)
    with pytest.raises(UserError, match=f"no version before {first} to go back to; there is no other version"):
        run_rollback(store)
    with pytest.raises(UserError, match=f"{first} is in production already"):
        run_rollback(store, first)
    second = published(job, tmp_path, 2)
    for unknown in ("feedbeef", "../x", f"{first}/model_repository"):
        with pytest.raises(UserError, match=f"has no version .*; --to takes one of {first}"):
            run_rollback(store, unknown)
    assert current(store).version == second


def test_a_version_that_was_changed_is_never_restored(tmp_path: Path) -> None:
    job = make_job((tmp_path / "models").as_uri())
    store = FileStore(tmp_path / "models" / "trees")
    first = published(job, tmp_path, 1)
    second = published(job, tmp_path, 2)
    folder = store.folder / "versions" / first
    model = next(folder.rglob("model.onnx"))
    kept = model.read_bytes()
    model.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(StepError, match=r"model\.onnx is missing or not what was published"):
        run_rollback(store)
    model.unlink()
    with pytest.raises(StepError, match="is missing or not what was published"):
        run_rollback(store)
    model.write_bytes(kept)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": []}))
    with pytest.raises(StepError, match="is not the one that was released"):
        run_rollback(store)
    assert current(store).version == second


def test_somebody_elses_version_is_not_taken_back(tmp_path: Path) -> None:
    job = make_job((tmp_path / "models").as_uri())
    store = FileStore(tmp_path / "models" / "trees")
    first, second = published(job, tmp_path, 1), published(job, tmp_path, 2)
    release = Release(version=first, manifest_sha256=current(store).history[0].manifest_sha256)
    with pytest.raises(StepError, match=f"{second} went into production meanwhile, in place of other; run again"):
        point_to(store, release, replaces="other")
    assert current(store).version == second


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def hasten(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hasten", *arguments])
        code = errors.run(app)
        out = capsys.readouterr()
        return code, out.out, out.err

    job = make_job((tmp_path / "models").as_uri())
    (tmp_path / "job.yaml").write_text(job.model_dump_json())
    uri = f"{(tmp_path / 'models').as_uri()}/trees"
    code, _, err = hasten("rollback", uri)
    assert (code, err.count("\n")) == (2, 1)
    first, second = published(job, tmp_path, 1), published(job, tmp_path, 2)
    code, out, _ = hasten("rollback", str(tmp_path / "job.yaml"), "--list", "--json")
    listed = json.loads(out)
    assert [(each["version"], each["state"]) for each in listed] == [(second, "in production"), (first, "released")]
    code, out, err = hasten("rollback", uri)
    assert (code, out) == (0, f"in production: {first} (withdrawn: {second})\n"), err
    code, out, _ = hasten("rollback", uri, "--list")
    assert [line.split()[0] for line in out.splitlines()] == [first, second]
    code, _, err = hasten("rollback", f"{uri}/versions/{first}")
    assert code == 2
    assert f"give the model's folder, {uri}, and --to {first}" in err
    (tmp_path / "nowhere.yaml").write_text(make_job(None).model_dump_json())
    code, _, err = hasten("rollback", str(tmp_path / "nowhere.yaml"))
    assert (code, err.count("\n")) == (2, 1)
    assert "publish: the job names no place" in err
