"""kill -9 at every step that a publisher takes: what a reader sees is whole, and the next publisher heals the rest."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.httpsession
import pytest

from components.core.contracts.job import Job
from components.core.contracts.leaderboard import Leaderboard
from components.publish.file_store import FileStore
from components.publish.pointer import read_production
from components.publish.records import VERSIONS
from components.publish.run import run_publish
from components.publish.store import Store, open_store
from fixtures.published import check_version, make_board, make_job, make_report, reader
from fixtures.seaweedfs import S3Server

FORK = multiprocessing.get_context("fork")
DISK_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "fcntl.flock", "shutil.copyfile"}


@pytest.fixture
def boards(tmp_path: Path) -> list[Leaderboard]:
    """Two versions."""
    return [make_board(tmp_path / f"m{seed}", seed) for seed in (1, 2)]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return make_report(tmp_path / "report")


def store_of(job: Job) -> Store:
    assert job.publish is not None
    return open_store(job.publish, job.name)


def run_child(work: Callable[[], object]) -> int | None:
    """Exit code of a process that does the work; negative: the signal that killed it."""
    child = FORK.Process(target=work)
    child.start()
    child.join()
    return child.exitcode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(fatal: int, job: Job, board: Leaderboard, report: Path) -> Callable[[], None]:
    """Publishes to a folder and is killed before its access number `fatal` to it."""

    def work() -> None:
        seen = 0
        folder = job.publish.to.removeprefix("file://")  # type: ignore[union-attr]

        def count(event: str, args: tuple[object, ...]) -> None:
            nonlocal seen
            if event in DISK_EVENTS and (event == "fcntl.flock" or folder in str(args)):
                seen += 1
                if seen == fatal:
                    die()

        sys.addaudithook(count)
        run_publish(job, board, report)

    return work


def killed_before_request(fatal: int, job: Job, board: Leaderboard, report: Path) -> Callable[[], None]:
    """Publishes to S3 and is killed before its request number `fatal`; after a request is before the next one."""

    def work() -> None:
        send, seen = botocore.httpsession.URLLib3Session.send, 0

        def count(self: object, request: object) -> object:
            nonlocal seen
            seen += 1
            if seen == fatal:
                die()
            return send(self, request)

        botocore.httpsession.URLLib3Session.send = count
        run_publish(job, board, report)
        die()

    return work


def check_what_is_visible(job: Job, complete: set[str]) -> str | None:
    """The version in production, all of whose files must be there; `complete` are the versions that may be."""
    store = store_of(job)
    production = read_production(store)
    if isinstance(store, FileStore) and (store.folder / VERSIONS).exists():
        for folder in (store.folder / VERSIONS).iterdir():
            if not folder.name.startswith("."):
                check_version(reader(store), folder.name)
    if production is None:
        return None
    for version in [production.version, *(entry.version for entry in production.history)]:
        assert version in complete
        check_version(reader(store), version)
    return production.version


def hidden(job: Job) -> list[Path]:
    folder = store_of(job).folder  # type: ignore[attr-defined]
    return [path for path in folder.rglob(".*") if path.name != ".production.lock"]


def versions_of(boards: list[Leaderboard], report: Path, scratch: Path) -> list[str]:
    """What the boards' versions are called, found out at another place."""
    job = make_job(scratch.as_uri())
    return [run_publish(job, board, report).rpartition("/")[2] for board in boards]


def test_killed_at_every_access_to_a_folder(tmp_path: Path, boards: list[Leaderboard], report: Path) -> None:
    names = versions_of(boards, report, tmp_path / "names")
    run_publish(make_job((tmp_path / "first").as_uri()), boards[0], report)
    fatal, kills, left_over = 0, 0, 0
    seen = set()
    while True:
        fatal += 1
        job = make_job((tmp_path / f"models{fatal}").as_uri())
        shutil.copytree(tmp_path / "first", tmp_path / f"models{fatal}")
        code = run_child(killed_at(fatal, job, boards[1], report))
        assert code in (0, -signal.SIGKILL)
        seen.add(check_what_is_visible(job, set(names)))
        left_over += bool(hidden(job))
        run_publish(job, boards[1], report)
        assert check_what_is_visible(job, set(names)) == names[1]
        assert read_production(store_of(job)).previous == names[0]  # type: ignore[union-attr]
        assert hidden(job) == []
        if code == 0:
            break
        kills += 1
    assert kills > 20
    assert left_over > 5
    assert seen == set(names)


def test_killed_before_every_request_to_s3(
    s3: S3Server, boards: list[Leaderboard], report: Path, tmp_path: Path
) -> None:
    (name,) = versions_of(boards[:1], report, tmp_path / "names")
    bucket = s3.new_bucket()
    visible = []
    while not visible or visible[-1] is None:
        job = make_job(f"s3://{bucket}/{len(visible)}")
        assert run_child(killed_before_request(len(visible) + 1, job, boards[0], report)) == -signal.SIGKILL
        visible.append(check_what_is_visible(job, {name}))
        run_publish(job, boards[0], report)
        assert check_what_is_visible(job, {name}) == name
    # Nothing was visible until the very last request, which moves the pointer.
    assert len(visible) > 10


@pytest.fixture(params=["file", "s3"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Job]:
    if request.param == "file":
        yield make_job((tmp_path / "models").as_uri())
    else:
        yield make_job(f"s3://{request.getfixturevalue('s3').new_bucket()}/models")


def test_killed_at_any_time_among_other_publishers(
    job: Job, boards: list[Leaderboard], report: Path, tmp_path: Path
) -> None:
    names = versions_of(boards, report, tmp_path / "names")
    dice = random.Random(3)
    started = time.monotonic()
    assert run_child(lambda: run_publish(job, boards[0], report)) == 0
    usual = time.monotonic() - started
    for _ in range(4):
        children = [FORK.Process(target=run_publish, args=(job, dice.choice(boards), report)) for _ in range(3)]
        for child in children:
            child.start()
        children[0].join(dice.uniform(0, usual))
        children[0].kill()
        for child in children:
            child.join()
        assert [child.exitcode for child in children[1:]] == [0, 0]
        assert check_what_is_visible(job, set(names)) in names
    run_publish(job, boards[1], report)
    assert check_what_is_visible(job, set(names)) == names[1]
