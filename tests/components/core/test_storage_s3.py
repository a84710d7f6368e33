import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import pytest

from components.core import s3 as s3_module
from components.core.errors import UserError
from components.core.s3 import S3, S3Location, explain, is_conflict, parse_s3, public_url
from components.core.storage import materialize
from fixtures.seaweedfs import S3Server

BIG = bytes(range(256)) * 40_000  # 10 MB: more than one part of the server's


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


def put(s3: S3Server, bucket: str, **objects: bytes) -> None:
    for name, body in objects.items():
        s3.client().put_object(Bucket=bucket, Key=name.replace("__", "/"), Body=body)


def cached_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_an_object_is_downloaded_once_and_again_when_it_changes(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, data__big=BIG)
    uri = f"s3://{bucket}/data/big"
    first = materialize(uri)
    assert first.read_bytes() == BIG
    before = first.stat()
    assert materialize(uri) == first
    assert first.stat() == before
    assert not before.st_mode & 0o222
    put(s3, bucket, data__big=b"other")
    assert materialize(uri).read_bytes() == b"other"
    assert first.read_bytes() == BIG


def test_a_damaged_cache_entry_is_downloaded_again(s3: S3Server, bucket: str) -> None:
    put(s3, bucket, a=b"12345")
    path = materialize(f"s3://{bucket}/a")
    path.unlink()
    path.write_bytes(b"123")
    assert materialize(f"s3://{bucket}/a").read_bytes() == b"12345"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_becomes_a_folder(s3: S3Server, bucket: str, tmp_path: Path, slash: str) -> None:
    put(s3, bucket, set__a=b"1", set__d__b=b"2", settle=b"another name that begins alike", set__same=b"1")
    folder = materialize(f"s3://{bucket}/set{slash}")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {"a", "d/b", "same"}
    assert (folder / "d" / "b").read_bytes() == b"2"
    assert materialize(f"s3://{bucket}/set{slash}") == folder
    put(s3, bucket, set__a=b"3")
    changed = materialize(f"s3://{bucket}/set{slash}")
    assert changed != folder
    assert (changed / "a").read_bytes() == b"3"


def test_more_objects_than_one_listing_page_has(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, bucket, **{f"many__{number:02d}": b"%d" % number for number in range(25)})
    store = S3()
    paginator = store.client.get_paginator("list_objects_v2")
    pages = paginator.paginate

    class Small:
        def paginate(self, **arguments: object) -> object:
            return pages(PaginationConfig={"PageSize": 10}, **arguments)

    monkeypatch.setattr(store.client, "get_paginator", lambda name: Small())
    assert len(store.below(S3Location(bucket, "many"))) == 25


def test_the_size_limit_holds_before_the_download(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, set__a=b"12345", set__b=b"12345")
    assert materialize(f"s3://{bucket}/set", max_bytes=10).is_dir()
    for uri, limit in ((f"s3://{bucket}/set", 9), (f"s3://{bucket}/set/a", 4)):
        with pytest.raises(UserError, match="more than the limit"):
            materialize(uri, max_bytes=limit)
    assert len(cached_files(tmp_path)) == 4


def test_keys_that_climb_out_never_leave_the_cache(
    s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, bucket, set__a=b"1")
    listed = S3().below(S3Location(bucket, "set"))
    # This server refuses to store such keys; others do not.
    monkeypatch.setattr(S3, "below", lambda self, location: {"../../../../evil": listed["a"]})
    with pytest.raises(UserError, match=r"climbs out of its folder"):
        materialize(f"s3://{bucket}/set")
    assert not cached_files(tmp_path)
    assert not list(tmp_path.parent.rglob("evil"))


def test_an_object_that_changes_during_the_download(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, a=b"1")
    store = S3()
    found = store.find(S3Location(bucket, "a"))
    put(s3, bucket, a=b"2")
    with pytest.raises(UserError, match=f"s3://{bucket}/a: the object changed while it was read; run again"):
        store.download([found])
    assert not cached_files(tmp_path)


def test_a_body_that_breaks_off_is_read_again(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, bucket, a=b"12345")
    store = S3()
    found = store.find(S3Location(bucket, "a"))
    stream, calls = store._stream, []

    def breaking(item: object, target: Path) -> None:
        calls.append(item)
        if len(calls) < 3:
            target.write_bytes(b"12")
            raise botocore.exceptions.ResponseStreamingError(error="broken off")
        stream(item, target)

    monkeypatch.setattr(store, "_stream", breaking)
    assert store.download([found])[0].read_bytes() == b"12345"
    assert len(calls) == 3


def test_a_body_that_breaks_off_again_and_again(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(s3, bucket, a=b"12345")
    store = S3()
    found = store.find(S3Location(bucket, "a"))

    def breaking(item: object, target: Path) -> None:
        raise botocore.exceptions.ResponseStreamingError(error="broken off")

    monkeypatch.setattr(store, "_stream", breaking)
    with pytest.raises(UserError, match=r"cannot be reached \(ResponseStreamingError\)"):
        store.download([found])
    assert not cached_files(tmp_path)


def error_of(uri: str, endpoint: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        materialize(uri, endpoint=endpoint)
    message = str(caught.value)
    assert "\n" not in message
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"):
        assert os.environ.get(name, "unset") not in message
    return message


def test_what_is_missing(s3: S3Server, bucket: str) -> None:
    put(s3, bucket, a=b"1")
    assert f"s3://{bucket}/b does not exist" in error_of(f"s3://{bucket}/b")
    assert f"{s3.endpoint} has no such bucket" in error_of("s3://no-such-bucket/a")
    assert f"{s3.endpoint} has no such bucket" in error_of("s3://no-such-bucket")
    assert "s3:///a' is no S3 URI" in error_of("s3:///a")
    assert "S3 accepts no such bucket" in error_of("s3://not a bucket/a")


def test_without_credentials(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert error_of(f"s3://{bucket}/a").startswith(
        f"s3://{bucket}/a: no S3 credentials were found; set AWS_ACCESS_KEY_ID"
    )


def test_half_of_the_credentials(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no S3 credentials were found" in error_of(f"s3://{bucket}/a")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret-value", "SignatureDoesNotMatch"),
        ("AWS_ACCESS_KEY_ID", "wrong-key-value", "InvalidAccessKeyId"),
    ],
)
def test_wrong_credentials(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: str
) -> None:
    put(s3, bucket, a=b"1")
    monkeypatch.setenv(name, value)
    assert f"refuses the S3 credentials ({code})" in error_of(f"s3://{bucket}/")
    # A HEAD request has no body that could name the code.
    assert "denies access with these credentials" in error_of(f"s3://{bucket}/a")


def test_a_bucket_of_somebody_else(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, bucket, a=b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.reader[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.reader[1])
    assert f"s3://{bucket}/a: {s3.endpoint} denies access" in error_of(f"s3://{bucket}/a")


def test_a_profile_that_does_not_exist(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    expected = f"s3://{bucket}/a: the AWS configuration cannot be used (ProfileNotFound); check AWS_PROFILE"
    assert error_of(f"s3://{bucket}/a").startswith(expected)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield taken.getsockname()[1]


def test_an_endpoint_that_does_not_answer(s3: S3Server, closed_port: int) -> None:
    message = error_of("s3://bucket/a", endpoint=f"http://127.0.0.1:{closed_port}")
    assert f"http://127.0.0.1:{closed_port} cannot be reached (EndpointConnectionError); check the endpoint" in message


def test_a_password_in_a_place_is_refused_and_not_shown(s3: S3Server) -> None:
    for message in (
        error_of("s3://bucket/a", endpoint="http://user:hidden@127.0.0.1:9000"),
        error_of("s3://user:hidden@bucket/a"),
    ):
        assert "user name or password; " in message
        assert "hidden" not in message


def test_an_endpoint_that_is_no_url(s3: S3Server) -> None:
    message = error_of("s3://bucket/a", endpoint="user:hidden@not a url")
    assert message == "s3://bucket/a: the S3 endpoint 'not a url' is no URL; write http(s)://host:port"


class WebServer(http.server.BaseHTTPRequestHandler):
    """What answers when the endpoint is some other web server."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def do_GET(self) -> None:
        page = b"<html>Welcome</html>" if self.server.friendly else b"<p>no such page"  # type: ignore[attr-defined]
        self.send_response(200 if self.server.friendly else 404)  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[True, False])
def web_server(request: pytest.FixtureRequest) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), WebServer) as server:
        server.friendly = request.param  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_endpoint_that_is_no_s3_store(s3: S3Server, web_server: str) -> None:
    message = error_of("s3://bucket/a", endpoint=web_server)
    assert message.startswith("s3://bucket/a")
    assert "endpoint" in message


def test_no_space_in_the_cache(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(s3, bucket, a=b"12345")
    monkeypatch.setattr(s3_module, "cache_folder", lambda: Path("/proc/hasten"))
    assert "/proc" in error_of(f"s3://{bucket}/a")


def answer(code: str, status: int, message: str = "") -> botocore.exceptions.ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (answer("SlowDown", 503, "StringToSign: private"), "answered 503 (SlowDown)"),
        (answer("<x y>", 500), "answered 500 (no S3 error code)"),
        (answer("PermanentRedirect", 301), "in another region; set AWS_REGION"),
        (answer("ExpiredToken", 400), "refuses the S3 credentials (ExpiredToken)"),
        (botocore.exceptions.ClientError({}, "PutObject"), "answered 0"),
        (botocore.exceptions.UnauthorizedSSOTokenError(), "cannot be used (UnauthorizedSSOTokenError); sign in again"),
    ],
)
def test_answers_that_this_server_does_not_give(error: Exception, reason: str) -> None:
    message = explain(error, "s3://b/k", "http://host")
    assert reason in message
    assert "private" not in message


def test_conflicts() -> None:
    assert is_conflict(answer("PreconditionFailed", 412))
    assert is_conflict(answer("ConditionalRequestConflict", 409))
    assert not is_conflict(answer("AccessDenied", 403))
    assert not is_conflict(ValueError())


def test_public_url() -> None:
    assert public_url("https://a:b@host:9000/path?token=x") == "https://host:9000/path"
    assert public_url("user:hidden@[::1/") != "user:hidden@[::1/"
    assert public_url("http://user:hidden@[::1/") == "that was given"
    assert parse_s3("s3://b/a/c?d#e") == S3Location("b", "a/c?d#e")
