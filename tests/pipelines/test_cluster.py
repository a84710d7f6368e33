"""`hasten submit` and `hasten schedule` against an API server that speaks KFP's own models."""

import json
import re

import pytest
import yaml

from components.core.contracts.job import Job
from components.core.errors import StepError, UserError
from fixtures.kfp_server import becomes, task
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.cluster import runs
from pipelines.cluster.connection import Server, UnreachableError, connect, speaking_to
from pipelines.cluster.schedules import check_cron

assert COMMANDS
JOB = {
    "name": "cells",
    "model": {"onnx": "s3://models/cells.onnx"},
    "data": {
        split: {"annotations": f"s3://data/{split}.json", "images": f"s3://data/{split}"} for split in ("train", "test")
    },
    "target": {"runtimes": ["tensorrt"], "input_shape": [1, 3, 320, 320]},
    "goal": {"min_speedup": "2x", "max_accuracy_drop": 0.01},
}


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB))
    return path


@pytest.fixture
def hasten(capsys, monkeypatch):
    """Runs the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(runs, "POLL", 0.0)
    monkeypatch.setattr(runs.follow, "__defaults__", (0.0, lambda seconds: None))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["hasten", *map(str, arguments)])
        code = errors.run(app)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_submit_uploads_the_pipeline_once_and_starts_a_run(kfp_server, job_file, hasten):
    for _ in range(2):
        code, out, err = hasten("submit", job_file, "--host", kfp_server.url, "--no-wait", "--json")
        assert (code, err.count("\n")) == (0, 1), err
        answer = json.loads(out)
        assert answer["url"] == f"{kfp_server.url}/#/runs/details/{answer['run_id']}"
    (pipeline,) = kfp_server.pipelines.values()
    assert pipeline.display_name == "hasten-ladder"
    names = [version.display_name for version in kfp_server.versions.values()]
    assert len(names) == 2  # the server's own first version, and ours
    assert re.fullmatch(r"\d+\.\d+\.\d+-[0-9a-f]{12}", names[1])
    (experiment,) = kfp_server.experiments.values()
    assert experiment.display_name == "hasten"
    assert len(kfp_server.runs) == 2
    for run in kfp_server.runs.values():
        assert run.display_name == "cells"
        assert Job.model_validate_json(run.runtime_config.parameters["job"]) == Job.model_validate(JOB)
        assert set(run.runtime_config.parameters) == {"job", "command"}


def test_the_gpu_is_a_parameter_of_the_run(kfp_server, job_file, hasten):
    gpu = ("--gpus", 1, "--gpu-product", "NVIDIA-L4", "--gpu-image", "registry.local/tensorrt:1")
    gpu += ("--service-account", "hasten-runner")
    code, _, err = hasten("submit", job_file, "--host", kfp_server.url, "--no-wait", *gpu)
    assert code == 0, err
    (run,) = kfp_server.runs.values()
    assert run.service_account == "hasten-runner"
    assert run.runtime_config.parameters["gpus"] == "1"
    assert run.runtime_config.parameters["gpu_resource"] == "nvidia.com/gpu"
    assert run.runtime_config.parameters["gpu_node_selector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert run.runtime_config.parameters["gpu_image"] == "registry.local/tensorrt:1"


def test_a_run_is_followed_task_by_task(kfp_server, job_file, hasten):
    kfp_server.script = [
        becomes("RUNNING", task("fetch", "RUNNING"), task("fetch-driver", "SUCCEEDED")),
        becomes("RUNNING", task("fetch", "SUCCEEDED"), task("export", "RUNNING")),
        becomes("RUNNING", task("fetch", "SUCCEEDED"), task("export", "RUNNING")),
        becomes("SUCCEEDED", task("fetch", "SUCCEEDED"), task("export", "SUCCEEDED")),
    ]
    code, out, err = hasten("submit", job_file, "--host", kfp_server.url)
    assert code == 0
    lines = err.splitlines()[1:]
    assert lines == ["fetch: running", "fetch: succeeded (0 s)", "export: running", "export: succeeded (0 s)"]
    assert "the job publishes nowhere" in out


def test_a_failed_run_ends_in_the_task_that_failed(kfp_server, job_file, hasten):
    kfp_server.script = [becomes("FAILED", task("fetch", "SUCCEEDED"), task("export", "FAILED", "no such module"))]
    code, out, err = hasten("submit", job_file, "--host", kfp_server.url)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "hasten: the run ended failed: export failed: no such module"


def test_a_server_that_is_away_for_a_while_is_waited_for(kfp_server, job_file, hasten):
    def down(run):
        kfp_server.refuse = (503, "upstream")

    def up(run):
        kfp_server.refuse = None

    kfp_server.script = [becomes("RUNNING"), down]
    server = Server(kfp_server.url)
    client = connect(server)
    code, _, _ = hasten("submit", job_file, "--host", kfp_server.url, "--no-wait")
    assert code == 0
    (run_id,) = kfp_server.runs
    said = []

    def sleep(seconds):
        if kfp_server.refuse:
            kfp_server.refuse = None
            kfp_server.script = [becomes("SUCCEEDED")]

    ended = runs.follow(client, server, run_id, said.append, 0.0, sleep)
    assert ended.state == "SUCCEEDED"
    assert said == ["the server does not answer; the run goes on, trying again"]


def test_a_server_that_stays_away_is_given_up(kfp_server, job_file, hasten):
    hasten("submit", job_file, "--host", kfp_server.url, "--no-wait")
    server = Server(kfp_server.url)
    client = connect(server)
    kfp_server.refuse = (503, "upstream")
    with pytest.raises(StepError, match=r"failed \(503\)"):
        runs.follow(client, server, next(iter(kfp_server.runs)), lambda line: None, 0.0, lambda seconds: None)


def test_a_schedule_is_created_replaced_listed_and_deleted(kfp_server, job_file, hasten):
    code, out, err = hasten("schedule", job_file, "--cron", "0 0 2 * * *", "--host", kfp_server.url)
    assert code == 0, err
    assert out.startswith("cells: 0 0 2 * * * (created")
    (first,) = kfp_server.recurring.values()
    assert (first.max_concurrency, first.no_catchup, first.mode) == ("1", True, "ENABLE")
    code, out, _ = hasten("schedule", job_file, "--cron", "0  30 1 * * 1", "--host", kfp_server.url)
    assert out.startswith("cells: 0 30 1 * * 1 (replaced")
    (second,) = kfp_server.recurring.values()
    assert second.recurring_run_id != first.recurring_run_id
    code, out, _ = hasten("schedules", "--host", kfp_server.url, "--json")
    (listed,) = json.loads(out)
    assert listed == {"id": second.recurring_run_id, "name": "cells", "cron": "0 30 1 * * 1", "enabled": True}
    code, out, _ = hasten("unschedule", "cells", "--host", kfp_server.url)
    assert (code, out) == (0, "cells: deleted\n")
    assert not kfp_server.recurring
    code, _, err = hasten("unschedule", "cells", "--host", kfp_server.url)
    assert (code, err) == (2, "hasten: no schedule is called 'cells'; there are: none\n")


@pytest.mark.parametrize("cron", ["0 2 * * *", "every day", "0 0 2 * * * *", "0 0 2 * * ;rm"])
def test_a_cron_expression_has_six_fields(cron):
    with pytest.raises(UserError, match=r"--cron: given .* accepted: six fields"):
        check_cron(cron)


def test_files_of_this_machine_are_refused_before_anything_is_sent(kfp_server, tmp_path, hasten):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB | {"model": {"onnx": str(tmp_path / "m.onnx")}}))
    code, _, err = hasten("submit", path, "--host", kfp_server.url, "--no-wait")
    assert code == 2
    assert "the cluster cannot read this machine's files (model.onnx: /" in err
    assert err.count("\n") == 1
    assert not kfp_server.pipelines


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "Unauthenticated"), "does not know you (401): set HASTEN_KFP_TOKEN or --token-file"),
        ((403, "PermissionDenied"), "does not let you do this without a namespace (403): check --namespace"),
        ((404, "not found"), "does not have it (404): check --host"),
        ((409, "exists"), "has one of that name already (409): exists"),
        ((400, "InvalidInputError: x"), "refuses the request (400): InvalidInputError: x"),
        ((500, "boom"), "failed (500); try again: boom"),
    ],
)
def test_every_refusal_is_one_line(kfp_server, job_file, hasten, refusal, words):
    kfp_server.refuse = refusal
    code, out, err = hasten("submit", job_file, "--host", kfp_server.url)
    assert code == (1 if refusal[0] == 500 else 2)
    assert words in err
    assert (out, err.count("\n")) == ("", 1)


def test_no_server_is_one_line_and_quick(job_file, hasten):
    code, out, err = hasten("submit", job_file, "--host", "http://127.0.0.1:9")
    assert code == 2
    assert err.startswith("hasten: no Kubeflow Pipelines at http://127.0.0.1:9 (")
    assert "kubectl -n kubeflow port-forward" in err
    assert (out, err.count("\n")) == ("", 1)
    with pytest.raises(UnreachableError), speaking_to(Server("http://h")):
        raise ConnectionResetError


@pytest.mark.parametrize("host", ["", "localhost:8080", "ftp://x"])
def test_a_host_is_an_http_address(host, job_file, hasten, monkeypatch):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    code, _, err = hasten("schedules", "--host", host)
    assert code == 2
    assert err.startswith(f"hasten: --host: given {host!r}, accepted: the http(s) address")


def test_the_token_comes_from_a_file_or_the_environment_and_shows_nowhere(
    kfp_server, job_file, hasten, tmp_path, monkeypatch
):
    kfp_server.token = "s3cret-token"
    code, _, err = hasten("schedules", "--host", kfp_server.url)
    assert code == 2
    assert "(401)" in err
    (tmp_path / "token").write_text("s3cret-token\n")
    code, out, err = hasten(
        "submit", job_file, "--no-wait", "--host", kfp_server.url, "--token-file", tmp_path / "token"
    )
    assert code == 0
    assert "s3cret" not in out + err
    monkeypatch.setenv("HASTEN_KFP_TOKEN", "s3cret-token")
    assert hasten("schedules", "--host", kfp_server.url)[0] == 0
    assert "s3cret" not in repr(Server("http://h", token="s3cret-token"))


def test_a_multi_user_server_wants_the_right_namespace(kfp_server, job_file, hasten):
    kfp_server.multi_user, kfp_server.namespace = True, "team-a"
    code, _, err = hasten("submit", job_file, "--host", kfp_server.url)
    assert code == 2
    assert "serves several users; give your profile's namespace" in err
    code, _, err = hasten("submit", job_file, "--host", kfp_server.url, "--namespace", "team-b")
    assert code == 2
    assert "does not let you do this in namespace 'team-b' (403)" in err
    code, _, err = hasten("submit", job_file, "--host", kfp_server.url, "--namespace", "team-a", "--no-wait")
    assert code == 0, err
    (experiment,) = kfp_server.experiments.values()
    assert experiment.namespace == "team-a"
