import itertools
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.core.contracts.job import Job
from components.core.errors import StepError, UserError
from components.core.stepping import listening
from components.publish import file_store, pointer, s3_store
from components.publish.component import publish
from components.publish.file_store import FileStore
from components.publish.pointer import point_to, read_production
from components.publish.records import Production, Release
from components.publish.run import check_destination, run_publish
from components.publish.s3_store import S3Store
from components.publish.store import Store, Stored, open_store
from fixtures.published import check_version, make_board, make_job, make_report, reader
from fixtures.seaweedfs import S3Server


@pytest.fixture(params=["file", "s3"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    """A job that publishes to an empty place, on each kind of store."""
    if request.param == "file":
        return make_job((tmp_path / "models").as_uri())
    server: S3Server = request.getfixturevalue("s3")
    return make_job(f"s3://{server.new_bucket()}/team/models")


@pytest.fixture
def store(job: Job) -> Store:
    assert job.publish is not None
    return open_store(job.publish, job.name)


def all_keys(store: Store) -> set[str]:
    """Everything that is stored, visible or not."""
    if isinstance(store, FileStore):
        folder = store.folder
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert isinstance(store, S3Store)
    return set(store._s3.below(store._root))


def test_a_first_publication(job: Job, store: Store, tmp_path: Path) -> None:
    uri = run_publish(job, make_board(tmp_path / "int8"), make_report(tmp_path / "report"))
    production = read_production(store)
    assert production is not None
    assert uri == f"{store.uri}/versions/{production.version}"
    assert (production.previous, production.history) == (None, [])
    manifest = check_version(reader(store), production.version)
    expected = {f"versions/{production.version}/{file.path}" for file in manifest.files}
    expected |= {"production.json", f"versions/{production.version}/manifest.json"}
    assert all_keys(store) - {".production.lock"} == expected


def test_a_large_file_goes_up_in_parts(s3: S3Server, tmp_path: Path) -> None:
    job = make_job(f"s3://{s3.new_bucket()}")
    report = make_report(tmp_path / "report", "x" * (9 << 20))
    version = run_publish(job, make_board(tmp_path / "int8"), report).rpartition("/")[2]
    assert job.publish is not None
    check_version(reader(open_store(job.publish, job.name)), version)


def test_the_same_content_again_changes_nothing(job: Job, store: Store, tmp_path: Path) -> None:
    first = run_publish(job, make_board(tmp_path / "a"), make_report(tmp_path / "report"))
    before = {key: store.read(key) for key in all_keys(store)}
    other_timings = make_board(tmp_path / "b", p50=12.0)
    assert run_publish(job, other_timings, make_report(tmp_path / "report2", "other")) == first
    assert {key: store.read(key) for key in all_keys(store)} == before


def test_versions_follow_one_another(job: Job, store: Store, tmp_path: Path) -> None:
    report = make_report(tmp_path / "report")
    boards = [make_board(tmp_path / f"m{seed}", seed) for seed in range(3)]
    names = [run_publish(job, board, report).rpartition("/")[2] for board in boards]
    production = read_production(store)
    assert production is not None
    assert (production.version, production.previous) == (names[2], names[1])
    assert [release.version for release in production.history] == [names[1], names[0]]
    # An older version that wins again goes into production again, and the history says so.
    run_publish(job, boards[0], report)
    production = read_production(store)
    assert production is not None
    assert [production.version, *(release.version for release in production.history)] == [
        names[n] for n in (0, 2, 1, 0)
    ]


def test_models_of_other_names_do_not_meet(job: Job, tmp_path: Path) -> None:
    report = make_report(tmp_path / "report")
    run_publish(job, make_board(tmp_path / "int8"), report)
    other = job.model_copy(update={"name": "shrubs"})
    run_publish(other, make_board(tmp_path / "int8"), report)
    assert job.publish is not None
    production = read_production(open_store(job.publish, "shrubs"))
    assert production is not None
    assert production.previous is None


def test_nothing_to_publish(tmp_path: Path) -> None:
    said: list[str] = []
    board = make_board(tmp_path / "int8")
    lost = board.model_copy(update={"winner": None, "goal_met": False, "why": "nothing was fast enough"})
    with listening(lambda message, *_: said.append(message)):
        assert run_publish(make_job(None), board, tmp_path) == ""
        assert run_publish(make_job((tmp_path / "models").as_uri()), lost, tmp_path) == ""
    assert said == [
        "nothing is published: the job names no place (publish.to)",
        "nothing is published: no candidate won (nothing was fast enough)",
    ]
    assert not (tmp_path / "models").exists()


def test_a_version_that_somebody_changed(job: Job, store: Store, tmp_path: Path) -> None:
    board, report = make_board(tmp_path / "int8"), make_report(tmp_path / "report")
    version = run_publish(job, board, report).rpartition("/")[2]
    key = f"versions/{version}/manifest.json"
    stored = store.read(key)
    assert stored is not None
    changed = json.loads(stored.content) | {"content_sha256": version + "0" * 48}
    assert store.swap(key, json.dumps(changed).encode(), stored.tag)
    with pytest.raises(StepError, match="holds other content than its name says"):
        run_publish(job, board, report)


def test_a_damaged_pointer_is_not_overwritten(job: Job, store: Store, tmp_path: Path) -> None:
    store.swap("production.json", b"{}", None)
    with pytest.raises(StepError, match=r"production\.json is no pointer that this version of hasten can read"):
        run_publish(job, make_board(tmp_path / "int8"), make_report(tmp_path / "report"))
    stored = store.read("production.json")
    assert stored is not None
    assert stored.content == b"{}"


def test_swap(job: Job, store: Store) -> None:
    assert store.read("key") is None
    assert not store.swap("key", b"1", '"d41d8cd98f00b204e9800998ecf8427e"')
    assert store.swap("key", b"1", None)
    assert not store.swap("key", b"2", None)
    first = store.read("key")
    assert first is not None
    assert store.swap("key", b"3", first.tag)
    assert not store.swap("key", b"4", first.tag)
    last = store.read("key")
    assert last is not None
    assert last.content == b"3"


class MemoryStore:
    """The pointer alone; other publishers get in between where `rivals` says so."""

    uri = "memory://"

    def __init__(self, rivals: Iterator[str]) -> None:
        self.rivals = rivals
        self.content: bytes | None = None

    def read(self, key: str) -> Stored | None:
        return Stored(self.content, str(hash(self.content))) if self.content is not None else None

    def swap(self, key: str, content: bytes, expected: str | None) -> bool:
        rival = next(self.rivals, "")
        if rival:
            self.rivals, rest = iter(()), self.rivals
            point_to(self, release(rival))  # type: ignore[arg-type]
            self.rivals = rest
        stored = self.read(key)
        if (stored.tag if stored else None) != expected:
            return False
        self.content = content
        return True


def release(version: str) -> Release:
    return Release(version=version, manifest_sha256=f"hash of {version}")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mine=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8),
    rivals=st.lists(st.sampled_from(["", "", "x", "y", "z"]), max_size=12),
)
def test_the_chain_holds_every_release(monkeypatch: pytest.MonkeyPatch, mine: list[str], rivals: list[str]) -> None:
    monkeypatch.setattr(pointer.time, "sleep", lambda seconds: None)
    store = MemoryStore(iter(rivals))
    done: list[str] = []
    for version in mine:
        point_to(store, release(version))  # type: ignore[arg-type]
        done.append(version)
        production = read_production(store)  # type: ignore[arg-type]
        assert production is not None
        chain = [production.version, *(entry.version for entry in production.history)]
        assert chain[0] == version
        assert production.previous == (chain[1] if len(chain) > 1 else None)
        assert all(one != following for one, following in itertools.pairwise(chain))
        assert set(done) <= set(chain)
        assert set(chain) <= {*mine, "x", "y", "z"}
    used = len(rivals) - len(list(store.rivals))
    assert {rival for rival in rivals[:used] if rival} <= set(chain)


def test_a_pointer_that_never_comes_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointer, "TIMEOUT", 0.05)
    store = MemoryStore(iter(()))
    monkeypatch.setattr(store, "swap", lambda *_: False)
    with pytest.raises(StepError, match=r"memory:///production\.json kept changing"):
        point_to(store, release("a"))  # type: ignore[arg-type]


def test_a_lock_that_is_held_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_store, "LOCK_TIMEOUT", 0.05)
    store = FileStore(tmp_path)
    with store._locked(), pytest.raises(StepError, match="was locked for 0 s by another publisher"):
        FileStore(tmp_path).swap("production.json", b"", None)


def test_a_write_whose_answer_got_lost(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(f"s3://{s3.new_bucket()}", "trees")
    swap, calls = store.swap, []

    def losing_the_answer(key: str, content: bytes, expected: str | None) -> bool:
        calls.append(key)
        return swap(key, content, expected) and len(calls) > 1

    monkeypatch.setattr(store, "swap", losing_the_answer)
    assert point_to(store, release("a")).history == []
    assert len(calls) == 1


def test_a_store_that_ignores_conditions(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(f"s3://{s3.new_bucket()}/models")
    put = botocore.client.BaseClient._make_api_call

    def unconditional(self: object, operation: str, arguments: dict[str, object]) -> object:
        arguments = {key: value for key, value in arguments.items() if key not in ("IfMatch", "IfNoneMatch")}
        return put(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", unconditional)
    with pytest.raises(StepError, match="ignores conditional writes"):
        run_publish(job, make_board(tmp_path / "int8"), make_report(tmp_path / "report"))


def test_places_that_cannot_be_published_to(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(to: str, endpoint: str | None = None) -> str:
        errors = []
        for attempt in (
            lambda: check_destination(make_job(to, endpoint)),
            lambda: run_publish(make_job(to, endpoint), make_board(tmp_path / "int8"), tmp_path),
        ):
            with pytest.raises(UserError) as caught:
                attempt()
            errors.append(str(caught.value))
        assert errors[0] == errors[1]
        assert errors[0].isprintable()
        assert s3.admin[1] not in errors[0]
        return errors[0]

    (tmp_path / "file").touch()
    assert f"publish.to: {tmp_path}/file is no folder that can be written" in refused(f"file://{tmp_path}/file/x")
    assert "publish.to: " in refused("file://host/folder")
    assert "has no such bucket" in refused("s3://no-such-bucket/x")
    assert "cannot be reached" in refused("s3://bucket/x", "http://127.0.0.1:1")
    bucket = s3.new_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "refuses the S3 credentials" in refused(f"s3://{bucket}/x")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no S3 credentials were found" in refused(f"s3://{bucket}/x")
    check_destination(make_job(None))


@pytest.mark.parametrize("limit", [s3_store._ONE_REQUEST, 0])
def test_a_bucket_that_may_only_be_read(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(s3_store, "_ONE_REQUEST", limit)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.reader[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.reader[1])
    with pytest.raises(UserError, match="denies access with these credentials"):
        run_publish(make_job("s3://read-only/x"), make_board(tmp_path / "int8"), make_report(tmp_path / "report"))


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        report = make_report(tmp_path / "report", "x" * 20_000)
        with pytest.raises(UserError, match="no space left") as caught:
            run_publish(make_job(place.as_uri()), make_board(tmp_path / "int8"), report)
        assert str(place) in str(caught.value)
        assert [path for path in place.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def publish_many(job: Job, tmp_path: Path, seeds: list[int]) -> list[str]:
    """One thread a seed, all starting together; the versions' names."""
    report = make_report(tmp_path / "report")
    boards = [make_board(tmp_path / f"m{seed}", seed) for seed in seeds]
    barrier = threading.Barrier(len(seeds))
    results: dict[int, str] = {}

    def work(number: int) -> None:
        barrier.wait()
        results[number] = run_publish(job, boards[number], report).rpartition("/")[2]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(seeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(seeds))]


def check_chain(store: Store, versions: list[str]) -> Production:
    production = read_production(store)
    assert production is not None
    chain = [production.version, *(entry.version for entry in production.history)]
    assert sorted(chain) == sorted(versions)
    for version in versions:
        check_version(reader(store), version)
    return production


def test_many_publishers_at_once_lose_no_update(job: Job, store: Store, tmp_path: Path) -> None:
    versions = publish_many(job, tmp_path, list(range(32)))
    assert len(set(versions)) == 32
    check_chain(store, versions)


def test_many_publishers_of_the_same_content(job: Job, store: Store, tmp_path: Path) -> None:
    (version,) = set(publish_many(job, tmp_path, [3] * 8))
    assert check_chain(store, [version]).previous is None


def test_the_component_runs_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = make_board(tmp_path / "int8")
    report = make_report(tmp_path / "report")
    job = make_job((tmp_path / "models").as_uri())
    uri = publish.python_func(job=job.model_dump_json(), board=board.model_dump_json(), report_uri=str(report))
    assert uri.startswith((tmp_path / "models" / "trees" / "versions").as_uri())
    bad = make_job("file://host/x")
    with pytest.raises(SystemExit) as caught:
        publish.python_func(job=bad.model_dump_json(), board=board.model_dump_json(), report_uri=str(report))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("publish: publish.to: ")
    assert os.path.isabs(uri.removeprefix("file://"))  # noqa: PTH117
