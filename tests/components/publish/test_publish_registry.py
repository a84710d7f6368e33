"""Registration in a Model Registry, over HTTP, against the registry's own models."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from components.core.contracts.job import Job, Runtime
from components.core.errors import StepError, UserError
from components.publish.facts import facts_of
from components.publish.provenance import Provenance
from components.publish.published import Published, read_published
from components.publish.registry import Registry, register
from components.publish.run import check_destination, run_publish
from fixtures.model_registry_server import ModelRegistryServer
from fixtures.published import make_board, make_job, make_report

PROVENANCE = Provenance(run_id="run-7", source_digest="d" * 64, code_version="c" * 16)


def job_for(place: Path, registry: str = "") -> Job:
    job = make_job((place / "models").as_uri())
    assert job.publish is not None
    return job.model_copy(update={"publish": job.publish.model_copy(update={"registry": registry or None})})


def report_of(folder: Path, board: Any) -> Path:
    report = make_report(folder)
    (report / "leaderboard.json").write_text(board.model_dump_json())
    return report


@pytest.fixture
def published(tmp_path: Path) -> Published:
    board = make_board(tmp_path / "int8")
    return read_published(run_publish(job_for(tmp_path), board, report_of(tmp_path / "report", board), PROVENANCE))


def properties(version: Any) -> dict[str, Any]:
    """Custom properties as plain values."""
    found = {}
    for name, value in version.custom_properties.items():
        kind = value.actual_instance.metadata_type.removeprefix("Metadata").removesuffix("Value").lower()
        found[name] = getattr(value.actual_instance, f"{kind}_value")
    return found


def test_publishing_registers_with_provenance(model_registry: ModelRegistryServer, tmp_path: Path) -> None:
    board = make_board(tmp_path / "int8")
    job = job_for(tmp_path, model_registry.url)
    uri = run_publish(job, board, report_of(tmp_path / "report", board), PROVENANCE)
    (model,), (version,) = model_registry.models.values(), model_registry.versions.values()
    ((parent, artifact),) = model_registry.artifacts.values()
    assert (model.name, version.registered_model_id, parent) == ("trees", model.id, version.id)
    assert version.name == uri.rpartition("/")[2]
    assert version.description == "int8 is 3.00x faster"
    assert artifact.uri == f"{uri}/model_repository/trees/1/model.onnx"
    assert Path(artifact.uri.removeprefix("file://")).is_file()
    assert (artifact.model_format_name, artifact.model_format_version) == ("onnx", "1.32")
    assert (artifact.model_source_kind, artifact.model_source_class, artifact.model_source_id) == (
        "kfp",
        "pipelinerun",
        "run-7",
    )
    found = properties(version)
    assert found["run_id"] == "run-7"
    assert found["source_digest"] == "d" * 64
    assert found["report_uri"].startswith(f"{uri}/evidence-")
    assert (Path(found["report_uri"].removeprefix("file://")) / "report.html").is_file()
    assert found["techniques"] == "surgery,int8"
    assert (found["runtime"], found["runtime_version"]) == ("onnxruntime", "1.32")
    assert (found["accuracy"], found["accuracy_metric"], found["accuracy_drop"]) == (0.41, "map50", 0.01)
    assert (found["latency_p50_ms"], found["baseline_latency_p50_ms"], found["speedup"]) == (10.0, 30.0, 3.0)
    assert found["size_bytes"] == "1234"  # the registry's API writes integers as text


def test_the_same_content_is_one_version(model_registry: ModelRegistryServer, tmp_path: Path) -> None:
    job = job_for(tmp_path, model_registry.url)
    for turn in range(3):  # other timings, the same model
        board = make_board(tmp_path / "int8", p50=10.0 + turn)
        run_publish(job, board, report_of(tmp_path / f"report-{turn}", board), PROVENANCE)
    assert [len(kept) for kept in (model_registry.models, model_registry.versions, model_registry.artifacts)] == [1] * 3
    board = make_board(tmp_path / "other", seed=1)
    run_publish(job, board, report_of(tmp_path / "report-other", board), PROVENANCE)
    assert [len(kept) for kept in (model_registry.models, model_registry.versions, model_registry.artifacts)] == [
        1,
        2,
        2,
    ]


def test_a_registration_that_broke_off_is_completed(model_registry: ModelRegistryServer, published: Published) -> None:
    registry = Registry(model_registry.url)
    for broken in ("/registered_models", "/model_versions", "/artifacts"):

        def fail(method: str, path: str, broken: str = broken) -> None:
            model_registry.refuse = (503, "away") if method == "POST" and path.endswith(broken) else None

        model_registry.before_answer = fail
        with pytest.raises(StepError, match=r"failed \(503\); try again: away"):
            register(published, registry)
    model_registry.before_answer = lambda method, path: None
    model_registry.refuse = None
    assert register(published, registry).new
    assert not register(published, registry).new
    assert [len(kept) for kept in (model_registry.models, model_registry.versions, model_registry.artifacts)] == [1] * 3


def test_sixteen_at_once_make_one_version(model_registry: ModelRegistryServer, published: Published) -> None:
    # Everyone asks before anyone makes: each but one finds that another was faster (409).
    barrier = threading.Barrier(16)

    def wait_for_the_others(method: str, path: str) -> None:
        if (method, path.rpartition("/")[2]) == ("GET", "registered_model") and not model_registry.models:
            barrier.wait(30)

    model_registry.before_answer = wait_for_the_others
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(register(published, Registry(model_registry.url))))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    assert len({result[:3] for result in results}) == 1
    assert [len(kept) for kept in (model_registry.models, model_registry.versions, model_registry.artifacts)] == [1] * 3


@pytest.mark.parametrize(
    ("refusal", "words", "kind"),
    [
        ((401, "Unauthorized"), "does not know you (401): set HASTEN_REGISTRY_TOKEN", UserError),
        ((403, "no"), "does not let you register models (403): check your role: no", UserError),
        ((404, "no"), "it must be a Model Registry with the API v1: no", UserError),
        ((400, "bad"), "refuses the request (400): bad", UserError),
        ((422, "bad"), "refuses the request (422): bad", UserError),
        ((500, "boom\nbang"), "failed (500); try again: boom bang", StepError),
    ],
)
def test_every_refusal_is_one_line_and_the_model_stays_published(
    model_registry: ModelRegistryServer, tmp_path: Path, refusal: tuple[int, str], words: str, kind: type[Exception]
) -> None:
    model_registry.refuse = refusal
    board = make_board(tmp_path / "int8")
    job = job_for(tmp_path, model_registry.url)
    with pytest.raises(kind) as raised:
        run_publish(job, board, report_of(tmp_path / "report", board), PROVENANCE)
    line = str(raised.value)
    assert words in line
    assert "is published, but not registered: " in line
    assert "\n" not in line
    assert (tmp_path / "models" / "trees" / "production.json").is_file()
    with pytest.raises(kind):  # and before a run, nothing is done at all
        check_destination(job)
    model_registry.refuse = None
    check_destination(job)


def test_who_is_no_registry(model_registry: ModelRegistryServer, published: Published) -> None:
    with pytest.raises(UserError, match=r"^no Model Registry at http://127\.0\.0\.1:9 \("):
        register(published, Registry.of("http://127.0.0.1:9"))
    for answer in (b"<html>sign in</html>", b'{"name": 1}', b"[]"):
        model_registry.answer_with = answer
        with pytest.raises(UserError, match="does not answer like a Model Registry"):
            register(published, Registry(model_registry.url))
    for url in ("", "registry:8080", "ftp://x"):
        with pytest.raises(UserError, match="is no address; write http"):
            Registry.of(url)


def test_the_token_comes_from_the_environment_and_shows_nowhere(
    model_registry: ModelRegistryServer, published: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model_registry.token = "s3cret"
    with pytest.raises(UserError, match="does not know you"):
        register(published, Registry.of(model_registry.url))
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(UserError, match=r"KF_PIPELINES_SA_TOKEN_PATH: .* is no file"):
        Registry.of(model_registry.url)
    (tmp_path / "token").write_text("s3cret\n")
    registry = Registry.of(model_registry.url)
    assert register(published, registry).new
    assert "s3cret" not in repr(registry)
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH")
    monkeypatch.setenv("HASTEN_REGISTRY_TOKEN", "s3cret")
    assert not register(published, Registry.of(model_registry.url)).new
    with_password = Registry.of(model_registry.url.replace("http://", "http://user:hidden@"))
    assert "hidden" not in with_password.shown


def test_a_job_sends_the_token_to_the_operators_registry_only(
    model_registry: ModelRegistryServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HASTEN_REGISTRY_TOKEN", "s3cret")
    assert Registry.of_job(model_registry.url).token == "s3cret"
    monkeypatch.setenv("HASTEN_REGISTRY_URL", "https://registry.example.com")
    for url in (
        model_registry.url,
        "http://169.254.169.254",
        "http://localhost:1",
        "http://[::1]:80",
        "http://10.0.0.1",
    ):
        with pytest.raises(UserError, match=r"^publish\.registry: a job may not name http") as raised:
            run_publish(job_for(tmp_path, url), make_board(tmp_path / "int8"), make_report(tmp_path / "report"))
        assert "HASTEN_REGISTRY_URL" in str(raised.value)
        with pytest.raises(UserError):
            check_destination(job_for(tmp_path, url))
    assert not (tmp_path / "models").exists()
    assert not model_registry.requests
    assert Registry.of_job("https://registry.example.com/").token == "s3cret"
    monkeypatch.setenv("HASTEN_ALLOWED_ENDPOINTS", "127.0.0.1")
    assert Registry.of_job(model_registry.url).token == ""


def test_it_works_inside_an_event_loop(model_registry: ModelRegistryServer, published: Published) -> None:
    async def in_a_notebook() -> None:
        assert register(published, Registry(model_registry.url)).new

    asyncio.run(in_a_notebook())


def test_an_engine_says_what_it_was_built_for(published: Published) -> None:
    board = published.board
    assert board is not None
    card = {
        "module": "tensorrt",
        "version": "11.0.1",
        "compute_capabilities": ["8.9"],
        "onnx_sha256": "e" * 64,
    }
    rows = [
        row.model_copy(update={"runtime": Runtime.TENSORRT, "details": {"engine": card}}) if row.id == "int8" else row
        for row in board.candidates
    ]
    board = board.model_copy(update={"candidates": rows, "environment": {"gpu": "NVIDIA L4", "tensorrt": "11.0.1"}})
    manifest = published.manifest.model_copy(update={"runtime": Runtime.TENSORRT})
    facts = facts_of(Published(published.uri, manifest, board, published.provenance))
    assert (facts["gpu"], facts["tensorrt_version"], facts["runtime_version"]) == ("NVIDIA L4", "11.0.1", "11.0.1")
    assert (facts["engine_built_by"], facts["engine_built_for"]) == ("tensorrt", "8.9")
    assert facts["engine_onnx_sha256"] == "e" * 64


def test_a_version_is_read_back_by_model_and_by_version(published: Published, tmp_path: Path) -> None:
    assert published.provenance == PROVENANCE
    assert published.board is not None
    assert published.board.winner == "int8"
    model = (tmp_path / "models" / "trees").as_uri()
    assert read_published(model) == read_published(f"{model}/") == published
    for uri, words in [
        ("trees", "accepted: the URI of a published model"),
        (f"{model}/versions/0123456789abcdef", "there is no such version"),
        ((tmp_path / "models" / "other").as_uri(), "nothing is in production there"),
        ("http://x/models/trees", "accepted: file:///folder or s3://bucket/prefix"),
        (f"{model}/versions/a/b", "accepted: the URI of a published model"),
    ]:
        with pytest.raises(UserError, match=words):
            read_published(uri)
    manifest = Path(published.uri.removeprefix("file://")) / "manifest.json"
    changed = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(changed | {"techniques": ["magic"]}))
    with pytest.raises(StepError, match="is not the one that production points to"):
        read_published(model)
    manifest.write_text("{}")
    with pytest.raises(StepError, match="holds what this version of hasten cannot read"):
        read_published(published.uri)


def test_the_command_registers_what_is_published(
    model_registry: ModelRegistryServer, published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from pipelines.cli import errors
    from pipelines.cli.app import app
    from pipelines.cli.main import COMMANDS

    assert COMMANDS
    arguments = ["hasten", "register", (tmp_path / "models" / "trees").as_uri(), "--registry", model_registry.url]
    version = published.manifest.version
    for words in (f"trees {version} registered: version 1\n", f"trees {version} was registered before: version 1\n"):
        monkeypatch.setattr("sys.argv", arguments)
        assert errors.run(app) == 0
        assert capsys.readouterr().out == words
    model_registry.refuse = (401, "")
    monkeypatch.setattr("sys.argv", arguments)
    assert errors.run(app) == 2
    assert capsys.readouterr().err.count("\n") == 1
