"""A job's endpoint is no way into a private network: by number, by name, by another answer later, by a redirect."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.endpoints import ALLOWED, check_endpoint
from components.core.errors import UserError
from components.core.job_file import parse_job
from components.core.s3 import S3, S3Location, parse_s3
from components.core.storage import materialize
from components.publish.run import check_destination

PUBLIC = "93.184.215.14"
NAMES = {"store.example": [PUBLIC], "inside.example": ["10.1.2.3"], "both.example": [PUBLIC, "127.0.0.1"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ALLOWED, "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "kept-to-itself")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A name server; the system's resolver reads everything else."""
    known = dict(NAMES)
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host in known:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]
        return real(host, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


def refusal_of(url: str) -> str:
    with pytest.raises(UserError) as caught:
        check_endpoint(url)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:9000", "localhost", "10.0.0.5", "172.16.3.4", "192.168.1.1", "100.64.0.1", "0.0.0.0",
        "[::1]", "[fc00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "2130706433",
        "0x7f.1", "127.1", "inside.example", "both.example", "224.0.0.1",
    ],
)  # fmt: skip
def test_private_addresses_are_refused_however_they_are_written(names: dict[str, list[str]], host: str) -> None:
    assert "is inside of a private network" in refusal_of(f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "168.63.129.16",
        "0xa9fea9fe",
    ],
)
def test_metadata_services_are_refused_even_from_the_allow_list(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert "metadata service" in refusal_of(f"http://{host}/latest")
    monkeypatch.setenv(ALLOWED, f"{host}, 0.0.0.0/0, ::/0")
    assert "metadata service" in refusal_of(f"http://{host}/latest")


def test_public_addresses_pass(names: dict[str, list[str]]) -> None:
    for url in (
        f"https://{PUBLIC}",
        "https://store.example",
        "https://store.example:9000/path",
        "http://[2606:4700::1]",
    ):
        check_endpoint(url)


def test_other_schemes_and_passwords_are_refused(names: dict[str, list[str]]) -> None:
    assert "is not http:// or https://" in refusal_of("gopher://store.example")
    assert "hidden" not in refusal_of("https://user:hidden@store.example")
    assert "user name or password" in refusal_of("https://user:hidden@store.example")


@pytest.mark.parametrize("entry", ["10.0.0.5", "10.0.0.5:9000", "10.0.0.0/8", " other.example , 10.0.0.5 "])
def test_the_allow_list_opens_what_it_names(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv(ALLOWED, entry)
    check_endpoint("http://10.0.0.5:9000")


def test_the_allow_list_closes_everything_else(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "*.example.org, 10.0.0.5:9000, inside.example")
    check_endpoint("http://inside.example")
    for url in (
        "https://store.example",
        "http://10.0.0.5:9001",
        "http://example.org.store.example",
        "http://nowhere.test",
    ):
        assert "is not among HASTEN_ALLOWED_ENDPOINTS" in refusal_of(url)
    names["a.example.org"] = ["10.0.0.9"]
    check_endpoint("http://a.example.org")
    monkeypatch.setenv(ALLOWED, "10.0.0.0/99")
    assert "'10.0.0.0/99' is no network" in refusal_of("http://10.0.0.5")


def test_the_stores_own_address_is_the_operators_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.0.0.5:9000")
    check_endpoint("http://10.0.0.5:9000")
    assert "private" in refusal_of("http://10.0.0.5:9001")


class Recorder(http.server.BaseHTTPRequestHandler):
    """Counts what reaches it; sends everything on to `location` if there is one."""

    def _answer(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        location = self.server.location  # type: ignore[attr-defined]
        self.send_response(307 if location else 404)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def servers() -> Iterator[list[Any]]:
    """Two web servers on loopback."""
    made = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) for _ in range(2)]
    for server in made:
        server.seen, server.location = [], ""  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    for server in made:
        server.shutdown()
        server.server_close()


def test_a_name_that_leads_elsewhere_the_second_time_gets_nothing(
    names: dict[str, list[str]], servers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retryhandler.random.random", lambda: 0.0)
    endpoint = f"http://store.example:{servers[0].server_port}"
    store = S3(endpoint)
    assert store.client  # judged while the name is a public address
    names["store.example"] = ["127.0.0.1"]
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore tries a failed request again
    with pytest.raises(UserError, match=r"store\.example is inside of a private network \(127\.0\.0\.1\)"):
        store.find(S3Location("bucket", "key"))
    assert servers[0].seen == []


def test_a_redirect_is_not_followed(servers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = servers
    monkeypatch.setenv(ALLOWED, f"127.0.0.1:{first.server_port}")
    first.location = f"http://127.0.0.1:{second.server_port}/latest/meta-data"
    with pytest.raises(UserError, match="answers with redirects only"):
        materialize("s3://bucket/key", endpoint=f"http://127.0.0.1:{first.server_port}")
    assert first.seen
    assert second.seen == []


def job_text(**changes: Any) -> str:
    split = {"annotations": "/d/a.json", "images": "/d/images"}
    fields = {
        "name": "a",
        "model": {"onnx": "/m.onnx"},
        "data": {"train": split, "test": split},
        "target": {"runtimes": ["onnxruntime"], "input_shape": [1, 3, 64, 64]},
        "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.02},
    }
    return yaml.safe_dump(fields | changes)


def test_publish_endpoints_of_a_job_are_judged_before_any_work(servers: list[Any]) -> None:
    endpoint = f"http://127.0.0.1:{servers[0].server_port}"
    job = parse_job(job_text(publish={"to": "s3://bucket/x", "endpoint": endpoint}))
    with pytest.raises(UserError, match="is inside of a private network"):
        check_destination(job)
    assert servers[0].seen == []


@pytest.mark.parametrize(
    "uri", ["http://169.254.169.254/m.onnx", "https://h/m.onnx?X-Amz-Signature=secret", "ftp://h/m"]
)
def test_models_come_from_no_web_address(uri: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_job(job_text(model={"onnx": uri}))
    assert "accepted: a path, file:// or s3://" in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="is not supported") as caught:
        materialize(uri)
    assert "secret" not in str(caught.value)


def test_a_region_is_no_way_to_another_host(tmp_path: Path) -> None:
    for region in ("x@evil.example/", "a.b", "169.254.169.254#", "x" * 64):
        with pytest.raises(UserError, match="the S3 region"):
            S3(region=region).find(S3Location("bucket", "key"))


def test_a_password_before_the_bucket_is_not_repeated() -> None:
    with pytest.raises(UserError, match="user name or password") as caught:
        parse_s3("s3://KEY:hidden@bucket/key")
    assert "hidden" not in str(caught.value)
