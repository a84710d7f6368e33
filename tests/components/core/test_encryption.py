"""Server-side encryption: asked for with every object that is written, one request or many parts."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components.core import s3 as s3_module
from components.core.contracts.job import Publish
from components.core.encryption import ENCRYPTION, KEY, Encryption
from components.core.errors import UserError
from components.core.s3 import S3
from components.publish.run import run_publish
from components.publish.store import open_store
from fixtures.published import check_version, make_board, make_job, make_report, reader
from fixtures.seaweedfs import S3Server


class Sent:
    """Headers of the requests that clients are about to sign and send.

    SeaweedFS answers 500 where no key to encrypt with was set up in it, so the wish is noted and then taken out.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []

    def watch(self, store: S3) -> None:
        def note(request: Any, operation_name: str, **_: Any) -> None:
            headers = {name.lower(): str(value) for name, value in request.headers.items()}
            self.requests.append((operation_name, headers))
            del request.headers["x-amz-server-side-encryption"]

        store.client.meta.events.register("before-sign.s3", note)

    def of(self, *operations: str) -> list[str | None]:
        """The encryption that each such request asked for."""
        header = "x-amz-server-side-encryption"
        return [headers.get(header) for name, headers in self.requests if name in operations]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    monkeypatch.delenv(ENCRYPTION, raising=False)
    monkeypatch.delenv(KEY, raising=False)
    s3_module._client.cache_clear()  # clients are shared, and others were watched
    return Sent()


def test_every_write_asks_for_it(s3: S3Server, tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = s3.new_bucket()
    monkeypatch.setenv(ENCRYPTION, "AES256")
    store = S3()
    sent.watch(store)
    store.client.put_object(Bucket=bucket, Key="small", Body=b"1")
    (tmp_path / "large").write_bytes(b"x" * (17 << 20))
    store.client.upload_file(str(tmp_path / "large"), bucket, "large")
    assert sent.of("PutObject", "CreateMultipartUpload") == ["AES256", "AES256"]
    assert set(sent.of("UploadPart")) == {None}  # S3 refuses it there
    assert store.client.get_object(Bucket=bucket, Key="small")["Body"].read() == b"1"
    head = store.client.head_object(Bucket=bucket, Key="large")
    assert head["ContentLength"] == 17 << 20


def test_without_a_setting_nothing_is_asked_for(s3: S3Server, sent: Sent) -> None:
    bucket = s3.new_bucket()
    store = S3()
    sent.watch(store)
    store.client.put_object(Bucket=bucket, Key="small", Body=b"1")
    assert sent.of("PutObject") == [None]


def test_a_job_says_it_for_what_it_publishes(s3: S3Server, tmp_path: Path, sent: Sent) -> None:
    to = f"s3://{s3.new_bucket()}/models"
    plain = make_job(to)
    assert plain.publish is not None
    job = plain.model_copy(update={"publish": plain.publish.model_copy(update={"encryption": "AES256"})})
    assert job.publish is not None
    store = open_store(job.publish, job.name)
    sent.watch(store._s3)  # type: ignore[attr-defined]
    version = run_publish(job, make_board(tmp_path / "m"), make_report(tmp_path / "r")).rpartition("/")[2]
    written = sent.of("PutObject", "CreateMultipartUpload")
    assert len(written) > 4
    assert set(written) == {"AES256"}
    check_version(reader(store), version)


def test_a_key_goes_along(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server here has KMS: the request is looked at and not sent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    class StoppedError(Exception):
        pass

    def stop(**_: Any) -> None:
        raise StoppedError

    store = S3(encryption=Encryption("aws:kms", "alias/models"))
    sent.watch(store)
    store.client.meta.events.register("before-send.s3", stop)
    with pytest.raises(StoppedError):
        store.client.put_object(Bucket="b", Key="k", Body=b"1")
    (request,) = sent.requests
    assert request[1]["x-amz-server-side-encryption"] == "aws:kms"
    assert request[1]["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/models"


@pytest.mark.parametrize(
    ("kind", "key", "words"),
    [
        ("aes", "", "HASTEN_S3_ENCRYPTION: given 'aes', accepted: AES256, aws:kms, aws:kms:dsse"),
        ("AES256", "alias/x", "HASTEN_S3_KMS_KEY goes with HASTEN_S3_ENCRYPTION=aws:kms"),
        ("", "alias/x", "HASTEN_S3_KMS_KEY goes with"),
        ("aws:kms", "a b", "is no id or ARN of a KMS key"),
    ],
)
def test_a_wrong_setting_is_one_line(kind: str, key: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENCRYPTION, kind)
    monkeypatch.setenv(KEY, key)
    with pytest.raises(UserError, match=words):
        _ = S3().client


def test_a_jobs_key_is_of_kms() -> None:
    assert Publish(to="s3://b/p", encryption="aws:kms", kms_key="arn:aws:kms:eu-central-1:1:key/a").kms_key
    with pytest.raises(ValidationError, match="kms_key goes with encryption"):
        Publish(to="s3://b/p", encryption="AES256", kms_key="a")
    with pytest.raises(ValidationError, match="pattern"):
        Publish(to="s3://b/p", encryption="none")
