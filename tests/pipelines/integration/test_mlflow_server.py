"""`hasten mlflow` against a real MLflow server on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from mlflow import MlflowClient

from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import StepError, UserError
from components.publish.published import read_published
from components.publish.run import run_publish
from fixtures.published import make_board, make_job, make_report
from fixtures.seaweedfs import S3Server
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.integration import mlflow
from pipelines.integration.mlflow import log_results
from pipelines.integration.results import read_results
from pipelines.local.record import RunRecord

assert COMMANDS
START_TIMEOUT = 120.0
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The server with a SQLite store, on one worker; killed with its workers at the end."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *(
            "--backend-store-uri",
            f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ),
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, cwd=folder
        )
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + START_TIMEOUT
    try:
        while True:
            try:
                if requests.get(f"{url}/health", timeout=1).ok:
                    break
            except requests.RequestException:
                pass
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def run_folder(folder: Path, board: Leaderboard, run_id: str = "run-1") -> Path:
    make_report(folder)
    (folder / "leaderboard.json").write_text(board.model_dump_json())
    RunRecord(run_id=run_id).write(folder)
    return folder


def children(client: MlflowClient, run_id: str) -> dict[str, Any]:
    run = client.get_run(run_id)
    found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {each.info.run_name: each for each in found}


def test_a_run_with_its_candidates_report_and_version(server: str, s3: S3Server, tmp_path: Path) -> None:
    board = make_board(tmp_path / "int8")
    failed = board.candidates[1].model_copy(
        update={"id": "fp16", "status": "failed", "reason": "x" * 9000, "latency_ms": None, "accuracy": None}
    )
    board = board.model_copy(update={"candidates": [*board.candidates, failed]})
    folder = run_folder(tmp_path / "run", board)
    published = read_published(run_publish(make_job(f"s3://{s3.new_bucket()}/models"), board, folder))
    logged = log_results(read_results(folder), server, "full", published)
    assert (logged.new, logged.version) == (True, "1")
    client = MlflowClient(server)
    run = client.get_run(logged.run_id)
    assert (run.info.run_name, run.info.status) == ("trees", "FINISHED")
    assert run.data.tags["hasten.run_id"] == "run-1"
    assert run.data.tags["mlflow.note.content"] == "int8 is 3.00x faster"
    assert run.data.params["winner"] == "int8"
    assert run.data.params["goal.min_speedup"] == "2x"
    assert run.data.params["environment.cpu"] == "a CPU | with a bar"
    assert run.data.metrics["latency_p50_ms"] == 10.0
    assert {each.path for each in client.list_artifacts(logged.run_id)} == {
        "leaderboard.json",
        "report.html",
        "run.json",
    }
    copy = Path(client.download_artifacts(logged.run_id, "leaderboard.json", str(tmp_path)))
    assert Leaderboard.model_validate_json(copy.read_text()) == board
    rows = children(client, logged.run_id)
    assert set(rows) == {"eager", "int8", "fp16"}
    assert rows["int8"].data.metrics == {
        "latency_p50_ms": 10.0, "latency_p90_ms": 11.0, "latency_p99_ms": 12.0, "speedup": 3.0, "speedup_ci_low": 2.9,
        "speedup_ci_high": 3.1, "throughput_per_s": 100.0, "accuracy": 0.41, "accuracy_drop": 0.01,
        "size_bytes": 1234.0,
    }  # fmt: skip
    assert rows["int8"].data.params["techniques"] == "surgery,int8"
    assert (rows["eager"].info.status, rows["fp16"].info.status) == ("FINISHED", "FAILED")
    version = client.get_model_version("trees", "1")
    assert (version.source, version.run_id) == (published.uri, logged.run_id)
    assert version.tags["hasten.version"] == published.manifest.version
    # Again: nothing is added. Another run with the same winner: another run, the same version.
    assert log_results(read_results(folder), server, "full", published) == logged._replace(new=False)
    other = log_results(read_results(run_folder(tmp_path / "run-2", board, "run-2")), server, "full", published)
    assert (other.new, other.version) == (True, "1")
    assert len(client.search_model_versions("name = 'trees'")) == 1
    experiment = client.get_experiment_by_name("full")
    assert len(client.search_runs([experiment.experiment_id])) == 2 * 4


def test_a_run_that_broke_off_is_logged_anew(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path / "run", make_board(tmp_path / "int8"))
    with monkeypatch.context() as broken:
        broken.setattr(mlflow, "_FILES", ("leaderboard.json", SimpleNamespace()))
        with pytest.raises(TypeError):
            log_results(read_results(folder), server, "broken")
    logged = log_results(read_results(folder), server, "broken")
    assert logged.new
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("broken")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 3
    assert {each.info.status for each in runs} == {"FINISHED"}


def test_the_command(server: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_folder(tmp_path / "run", make_board(tmp_path / "int8"))
    for words in ("trees: logged: run ", "trees: was logged before: run "):
        monkeypatch.setattr(
            "sys.argv", ["hasten", "mlflow", str(folder), "--tracking-uri", server, "--experiment", "cli"]
        )
        assert errors.run(app) == 0
        out = capsys.readouterr()
        assert out.out.startswith(words)
        assert out.err == ""
    (folder / "run.json").unlink()  # a report of a run on a cluster: the leaderboard's hash is its name
    assert log_results(read_results(folder), server, "cli").new
    assert not log_results(read_results(folder), server, "cli").new
    shutil.rmtree(folder)
    assert errors.run(app) == 2


def test_who_is_no_server(tmp_path: Path) -> None:
    results = read_results(run_folder(tmp_path / "run", make_board(tmp_path / "int8")))
    with pytest.raises(UserError, match=r"^no MLflow server at http://127\.0\.0\.1:9 \("):
        log_results(results, "http://127.0.0.1:9")
    for uri in ("", "sqlite:///x", "databricks", "http://"):
        with pytest.raises(UserError, match="accepted: the http"):
            log_results(results, uri)
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_USERNAME") as raised:
        log_results(results, "http://user:hidden@127.0.0.1:9")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not let you log runs (401): set MLFLOW_TRACKING_TOKEN"),
        (403, "(403)"),
        (404, "refuses"),
        (500, "failed"),
    ],
)
def test_every_refusal_is_one_line(tmp_path: Path, status: int, words: str) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"no\nx")

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    refusing = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=refusing.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        results = read_results(run_folder(tmp_path / "run", make_board(tmp_path / "int8")))
        with pytest.raises(UserError if status < 500 else StepError) as raised:
            log_results(results, f"http://127.0.0.1:{refusing.server_address[1]}")
    finally:
        refusing.shutdown()
        refusing.server_close()
        thread.join()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
