"""The whole ladder through S3: model, data and publication in a store that is killed while it is published to."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_job import hasten, make_tiny_job

from components.publish.pointer import read_production
from components.publish.run import run_publish
from components.publish.s3_store import S3Store
from fixtures.cutting_proxy import CuttingProxy, proxy_before
from fixtures.published import check_version, make_board, make_job, make_report, reader
from fixtures.seaweedfs import MortalServer, point_to

pytestmark = pytest.mark.slow
HOSTILE = "a b;$(touch owned)`touch owned`&'"
"""A prefix that a shell would act on; S3 keys and folders may be called so."""


class Store:
    """The server as the ladder meets it: through a proxy that kills it before the second file of the new version."""

    def __init__(self, mortal: MortalServer) -> None:
        self.mortal = mortal
        self.armed = False
        self.uploads = 0
        self.proxy: CuttingProxy

    def __call__(self, request: str) -> None:
        if self.armed and re.match(r"PUT .*/models/tiny/versions/", request):
            self.uploads += 1
            if self.uploads == 2:
                self.armed = False
                self.mortal.kill()

    def objects(self, bucket: str) -> dict[str, str]:
        pages = self.mortal.server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", [])}


@pytest.fixture
def store(mortal_s3: MortalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    held = Store(mortal_s3)
    with proxy_before(mortal_s3.port, held) as proxy:
        held.proxy = proxy
        point_to(mortal_s3.server, monkeypatch, tmp_path / "cache", endpoint=proxy.url)
        yield held


def upload(store: Store, folder: Path, bucket: str) -> Path:
    """Puts the tiny job's files into the bucket and writes a job that names them there."""
    client = store.mortal.server.client()
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".yaml":
            client.put_object(
                Bucket=bucket, Key=f"{HOSTILE}/{path.relative_to(folder).as_posix()}", Body=path.read_bytes()
            )
    fields: dict[str, Any] = yaml.safe_load((folder / "job.yaml").read_text())
    root = f"s3://{bucket}/{HOSTILE}"
    fields["model"]["weights"] = f"{root}/weights.pt"
    for split in ("train", "test"):
        fields["data"][split] = {
            "annotations": f"{root}/{split}/annotations.json",
            "images": f"{root}/{split}/images",
        }
    fields["publish"] = {"to": f"s3://{bucket}/models"}
    path = folder.parent / f"{HOSTILE}.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def files_with(text: str, *folders: Path) -> list[Path]:
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in found if text.encode() in path.read_bytes()]


def test_the_ladder_runs_through_s3_and_survives_the_death_of_the_store(store: Store, tmp_path: Path) -> None:
    bucket = store.mortal.server.new_bucket()
    make_tiny_job(tmp_path / "job")
    job = upload(store, tmp_path / "job", bucket)
    older = run_publish(
        make_job(f"s3://{bucket}/models", name="tiny"), make_board(tmp_path / "m"), make_report(tmp_path / "report")
    ).rpartition("/")[2]
    before = store.objects(bucket)

    store.armed = True
    work = tmp_path / "work"
    work.mkdir()
    arguments = ("run", job, "--out", work / HOSTILE)
    first = hasten(tmp_path / "cache", *arguments, cwd=work)
    assert store.uploads == 2, first.stderr
    assert first.returncode == 2, first.stderr
    last = first.stderr.strip().splitlines()[-1]
    assert last.startswith("hasten: publish: s3://"), last
    assert f"{store.proxy.url} cannot be reached" in last
    assert "Traceback" not in first.stdout + first.stderr

    store.mortal.start_again()
    after = store.objects(bucket)
    assert before.items() <= after.items(), "the store lost or changed an object"
    models = S3Store(f"s3://{bucket}/models", "tiny")
    production = read_production(models)
    assert production is not None
    assert production.version == older, "production moved before the new version was whole"

    second = hasten(tmp_path / "cache", *arguments, "--json", cwd=work)
    assert second.returncode == 0, second.stderr
    record = json.loads((work / HOSTILE / "run.json").read_text())
    assert record["starts"] == 2
    states = {(step["rung"], step["step"]): step["state"] for step in record["steps"]}
    for key in [
        ("", "fetch"),
        ("", "export"),
        ("", "benchmark"),
        ("int8", "int8"),
        ("int8", "benchmark"),
        ("", "report"),
    ]:
        assert states[key] == "cached", key
    assert states["", "publish"] == "done"

    production = read_production(models)
    assert production is not None
    assert production.previous == older
    for version in (older, production.version):
        check_version(reader(models), version)
    assert f"published:   s3://{bucket}/models/tiny/versions/{production.version}" in second.stderr
    board = json.loads(second.stdout)
    assert json.loads((work / HOSTILE / "leaderboard.json").read_text()) == board

    # Names are data: no shell has seen them. And neither the store's keys nor a token are in anything that was written.
    assert sorted(path.name for path in work.iterdir()) == [HOSTILE]
    assert not list(tmp_path.rglob("owned"))
    key, secret = store.mortal.server.admin
    for text in (secret, key):
        assert text not in first.stdout + first.stderr + second.stdout + second.stderr
        assert not files_with(text, work, tmp_path / "cache")
    for name in store.objects(bucket):
        body = store.mortal.server.client().get_object(Bucket=bucket, Key=name)["Body"].read()
        assert secret.encode() not in body, name
