import os
import sys
from pathlib import Path

import pytest
from fetch_jobs import edit, make_job, write_source

from components.core.contracts.job import Job
from components.core.errors import UserError
from components.core.factory_code import factory_files
from components.fetch.component import fetch
from components.fetch.sources import check_sources, source_digest
from fixtures.seaweedfs import S3Server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def job(source: Path) -> Job:
    return make_job(str(source))


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def test_the_digest_changes_with_what_matters_and_with_nothing_else(job: Job, source: Path) -> None:
    first = source_digest(job)
    assert source_digest(job) == first
    assert source_digest(job.model_copy(update={"name": "other"})) == first
    touch(source / "weights.safetensors")
    touch(source / "train.json")
    (source / "images" / "unused.png").write_bytes(b"changed")
    assert source_digest(job) == first

    seen = {first}
    (source / "weights.safetensors").write_bytes(b"Weights" * 1000)
    seen.add(source_digest(job))
    edit(source / "train.json", lambda document: document["annotations"][0].update(bbox=[1, 1, 9, 9]))
    seen.add(source_digest(job))
    (source / "images" / "test" / "1.png").write_bytes((source / "images" / "test" / "2.png").read_bytes())
    seen.add(source_digest(job))
    touch(source / "images" / "test" / "1.png")
    seen.add(source_digest(job))
    assert len(seen) == 5


def test_the_digest_changes_with_the_factory(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    (code / "user_models").mkdir(parents=True)
    monkeypatch.syspath_prepend(code)
    unknown = source_digest(job)
    (code / "user_models" / "__init__.py").write_text("from .layers import detector")
    (code / "user_models" / "layers.py").write_text("def detector(): return 1")
    known = source_digest(job)
    (code / "user_models" / "layers.py").write_text("def detector(): return 2")
    assert len({unknown, known, source_digest(job)}) == 3
    assert "user_models" not in sys.modules


def test_files_of_a_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("single.py", "package/__init__.py", "package/deep/__init__.py", "package/deep/model.py", "space/m.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(factory: str) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in factory_files(factory)]

    assert names("single:make") == ["single.py"]
    package = ["package/__init__.py", "package/deep/__init__.py", "package/deep/model.py"]
    assert names("package:make") == names("package.deep:make") == names("package.deep.model:make") == package
    assert names("space.m:make") == ["space/m.py"]
    assert names("package.missing:make") == names("missing.m:make") == names("single.m:make") == []
    assert [path.name for path in factory_files("pydantic.main:make")] == ["main.py"]
    assert [path.name for path in factory_files("json.decoder:make")] == ["decoder.py"]


def test_check_sources(job: Job, source: Path) -> None:
    check_sources(job)
    (source / "images" / "test" / "1.png").unlink()
    with pytest.raises(UserError, match=r"data\.test\.annotations: .* missing images: 1 \('test/1\.png'\)"):
        check_sources(job)


def test_the_digest_of_s3_follows_etags(s3: S3Server, source: Path) -> None:
    bucket = s3.new_bucket()
    client = s3.client()
    for path in source.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, path.relative_to(source).as_posix())
    job = make_job(f"s3://{bucket}")
    first = source_digest(job)
    client.upload_file(str(source / "images/test/1.png"), bucket, "images/test/1.png")
    assert source_digest(job) == first
    client.upload_file(str(source / "images/test/2.png"), bucket, "images/test/1.png")
    assert source_digest(job) != first


def test_the_component_runs_the_step(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kfp import dsl

    bundle = dsl.Artifact(name="bundle", uri=str(tmp_path / "bundle"))
    uri = fetch.python_func(job=job.model_dump_json(), source_digest="", code_version="", bundle=bundle)
    assert uri == str(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "fetch_card.json").is_file()
    assert bundle.metadata == {"images": 5, "bytes": bundle.metadata["bytes"]}

    missing = job.model_copy(update={"model": job.model.model_copy(update={"weights": "/no/such.pt"})})
    with pytest.raises(SystemExit) as caught:
        fetch.python_func(job=missing.model_dump_json(), source_digest="", code_version="", bundle=bundle)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("fetch: model.weights: /no/such.pt does not exist; give the path")
