"""kill -9 of the S3 *server* while publishers write to it: nothing is lost, and the same call goes on."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.errors import UserError
from components.publish.pointer import read_production
from components.publish.run import run_publish
from components.publish.store import open_store
from fixtures.cutting_proxy import proxy_before
from fixtures.published import check_version, make_board, make_job, make_report, reader
from fixtures.seaweedfs import MortalServer, point_to

pytestmark = pytest.mark.slow
PUBLISHERS = 32


class Cut:
    """Kills the server before a request, once."""

    def __init__(self, server: MortalServer) -> None:
        self.server, self.done = server, True
        self._wanted, self._left = "", 0
        self._lock = threading.Lock()

    def before(self, wanted: str, count: int = 1) -> None:
        """Chooses the request: the one of this number among those that the pattern finds."""
        self._wanted, self._left, self.done = wanted, count, False

    def __call__(self, request: str) -> None:
        with self._lock:
            if not self.done and re.search(self._wanted, request):
                self._left -= 1
                if not self._left:
                    self.server.kill()
                    self.done = True


@pytest.fixture
def cut(mortal_s3: MortalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cut]:
    """The environment's store is the mortal server, by way of a proxy that kills it on demand."""
    killer = Cut(mortal_s3)
    with proxy_before(mortal_s3.port, killer) as proxy:
        point_to(mortal_s3.server, monkeypatch, tmp_path / "cache", endpoint=proxy.url)
        yield killer


@pytest.mark.parametrize("last", ["PUT .*/versions/", "PUT .*/manifest.json", "PUT .*/production.json"])
def test_the_server_is_killed_in_the_middle_of_a_publication(cut: Cut, tmp_path: Path, last: str) -> None:
    job = make_job(f"s3://{cut.server.server.new_bucket()}/models")
    assert job.publish is not None
    report = make_report(tmp_path / "report")
    boards = [make_board(tmp_path / f"m{seed}", seed) for seed in (1, 2)]
    first = run_publish(job, boards[0], report).rpartition("/")[2]

    cut.before(last)
    with pytest.raises(UserError) as caught:
        run_publish(job, boards[1], report)
    assert cut.done
    assert "cannot be reached" in str(caught.value)
    assert str(caught.value).isprintable()

    cut.server.start_again()
    store = open_store(job.publish, job.name)
    production = read_production(store)
    assert production is not None
    assert production.version == first, "production moved before the new version was whole"
    check_version(reader(store), first)

    second = run_publish(job, boards[1], report).rpartition("/")[2]
    production = read_production(store)
    assert production is not None
    assert (production.version, production.previous) == (second, first)
    check_version(reader(store), second)


def test_the_server_is_killed_among_many_publishers(cut: Cut, tmp_path: Path) -> None:
    job = make_job(f"s3://{cut.server.server.new_bucket()}/models")
    assert job.publish is not None
    report = make_report(tmp_path / "report")
    boards = [make_board(tmp_path / f"m{seed}", seed) for seed in range(PUBLISHERS)]
    published: dict[int, str] = {}
    refused: dict[int, UserError] = {}

    def work(number: int, barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            published[number] = run_publish(job, boards[number], report).rpartition("/")[2]
        except UserError as error:
            refused[number] = error

    def all_of(numbers: list[int]) -> None:
        barrier = threading.Barrier(len(numbers))
        threads = [threading.Thread(target=work, args=(number, barrier)) for number in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    cut.before("PUT .*/production.json", 20)  # some have moved the pointer by then, and most have not
    all_of(list(range(PUBLISHERS)))
    assert cut.done
    assert len(published) + len(refused) == PUBLISHERS
    assert refused
    assert all("cannot be reached" in str(error) for error in refused.values())

    cut.server.start_again()
    store = open_store(job.publish, job.name)
    acknowledged = set(published.values())
    production = read_production(store)
    chain = [production.version, *(entry.version for entry in production.history)] if production else []
    assert acknowledged <= set(chain), "an acknowledged publication is gone"
    assert len(chain) == len(set(chain))

    again = list(refused)
    refused.clear()
    all_of(again)
    assert not refused
    production = read_production(store)
    assert production is not None
    chain = [production.version, *(entry.version for entry in production.history)]
    assert set(chain) == set(published.values())
    assert len(set(chain)) == PUBLISHERS
    for version in set(chain):
        check_version(reader(store), version)
