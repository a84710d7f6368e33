"""A fleet on a cluster: its run's own steps, run by kfp.local, start the models' runs on an API server."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from fleet_files import write_fleet

from fixtures.kfp_server import becomes, task
from pipelines.cli import errors
from pipelines.cli.app import app
from pipelines.cli.main import COMMANDS
from pipelines.cluster import runs
from pipelines.cluster.connection import Server, connect
from pipelines.fleet import children
from pipelines.fleet.children import Child, climb, server_of_the_pod
from pipelines.fleet.climbing import climb_apart
from pipelines.fleet.contract import read_fleet
from pipelines.fleet.rows import State
from pipelines.fleet.submitting import submit_fleet, summary_of

assert COMMANDS
ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def fleet(tmp_path):
    return read_fleet(write_fleet(tmp_path, 4))[0]


def fates(**states):
    """What becomes of the models' runs by the last digit of their names; those that are not named succeed."""

    def change(run):
        state = states.get(f"m{run.display_name.split()[0][-1]}", "SUCCEEDED")
        failure = [task("export", "FAILED", "no such operator")] if state == "FAILED" else []
        becomes(state, *failure)(run)
        run.finished_at = run.created_at + timedelta(seconds=90)

    return change


@pytest.fixture
def hasten(capsys, monkeypatch):
    """Runs the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(runs.follow, "__defaults__", (0.0, lambda seconds: None))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["hasten", *map(str, arguments)])
        code = errors.run(app)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_submitting_starts_one_run_that_can_start_the_others(kfp_server, tmp_path, hasten):
    path = write_fleet(tmp_path, 4)
    code, out, err = hasten("submit", path, "--host", kfp_server.url, "--no-wait", "--json", "--gpus", 1)
    assert code == 0, err
    answer = json.loads(out)
    assert {pipeline.display_name for pipeline in kfp_server.pipelines.values()} == {"hasten-ladder", "hasten-fleet"}
    (run,) = kfp_server.runs.values()
    given = run.runtime_config.parameters
    assert given["stamp"] == answer["stamp"]
    assert given["gpu"] == {"gpus": "1", "gpu_resource": "nvidia.com/gpu"}
    version = kfp_server.versions[run.pipeline_version_reference.pipeline_version_id]
    loop = version.pipeline_spec["root"]["dag"]["tasks"]["for-loop-1"]
    assert loop["iteratorPolicy"] == {"parallelismLimit": 3}
    assert given["version_id"] in kfp_server.versions


RUN_HERE = """
import json, sys
from kfp import local
from pipelines.fleet.pipeline import fleet
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2], raise_on_error=True)
done = fleet(**json.loads(sys.argv[1]))
print("\\nSUMMARY" + done.outputs["Output"])
"""


def run_here(arguments, root):
    """Runs the fleet's pipeline with kfp.local, in a process of its own: its threads leave `print` changed."""
    command = [sys.executable, "-c", RUN_HERE, json.dumps(arguments), str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if "SUMMARY" in line]
    return json.loads(line.partition("SUMMARY")[2])


def test_the_loop_gives_every_model_a_run_and_a_failed_one_is_a_row(kfp_server, fleet, tmp_path):
    server = Server(kfp_server.url)
    client = connect(server)
    submit_fleet(client, server, fleet, {}, stamp="s1")
    (own,) = kfp_server.runs.values()
    kfp_server.runs.clear()
    kfp_server.fate = fates(m1="FAILED", m3="CANCELED")
    summary = run_here(own.runtime_config.parameters | {"host": kfp_server.url}, tmp_path / "root")
    states = {row["name"]: (row["state"], row["reason"]) for row in summary["rows"]}
    assert states["model-001"] == ("failed", "failed: export failed: no such operator")
    assert states["model-003"][0] == "failed"
    for name in ("model-000", "model-002"):
        assert states[name] == (
            "missed",
            "nothing to show: the job publishes nowhere; the report is among the run's artifacts",
        )
    assert all(row["seconds"] == 90 for row in summary["rows"])
    assert sorted(run.display_name for run in kfp_server.runs.values()) == [f"model-00{n} s1" for n in range(4)]
    jobs = [json.loads(run.runtime_config.parameters["job"]) for run in kfp_server.runs.values()]
    assert sorted(job["model"]["onnx"] for job in jobs)[0] == "s3://models/team-0/model-000.onnx"
    (table,) = (tmp_path / "root").rglob("table")
    assert "0 of 4 models meet their goal, 2 do not, 2 failed." in table.read_text()


def a_child(kfp_server, fleet, stamp="s1"):
    server = Server(kfp_server.url)
    submit_fleet(connect(server), server, fleet, {}, stamp=stamp)
    own = kfp_server.runs.popitem()[1]
    given = own.runtime_config.parameters
    return server, Child(given["pipeline_id"], given["version_id"], {}, "", stamp)


def test_a_step_that_is_done_again_takes_up_the_run_that_it_started(kfp_server, fleet):
    server, child = a_child(kfp_server, fleet)
    kfp_server.fate = fates()
    for _ in range(2):
        climb(fleet.jobs[0], server, child, 0.0, lambda seconds: None)
    assert len(kfp_server.runs) == 1
    # One that failed is tried again, and another fleet has runs of its own.
    kfp_server.fate = fates(m0="FAILED")
    next(iter(kfp_server.runs.values())).state = "FAILED"
    climb(fleet.jobs[0], server, child, 0.0, lambda seconds: None)
    assert len(kfp_server.runs) == 2
    climb(fleet.jobs[0], server, child._replace(stamp="s2"), 0.0, lambda seconds: None)
    assert len(kfp_server.runs) == 3


@pytest.mark.parametrize("refusal", [(401, "Unauthenticated"), (500, "boom"), (404, "gone")])
def test_whatever_the_server_says_is_a_row(kfp_server, fleet, refusal):
    server, child = a_child(kfp_server, fleet)
    kfp_server.refuse = refusal
    row = climb(fleet.jobs[0], server, child, 0.0, lambda seconds: None)
    assert row.state is State.FAILED
    assert f"({refusal[0]})" in row.reason


def test_a_server_that_is_not_there_is_a_row(fleet):
    row = climb(fleet.jobs[0], Server("http://127.0.0.1:9"), Child("p", "v", {}, "", "s"), 0.0, lambda seconds: None)
    assert row.state is State.FAILED
    assert "no Kubeflow Pipelines at http://127.0.0.1:9" in row.reason


def test_a_process_that_dies_is_a_row(fleet):
    row = climb_apart("zlib:AAAA", "model-000", Child("p", "v", {}, "", "s"), "http://127.0.0.1:9", "")
    assert row.state is State.FAILED
    assert row.reason.startswith("its run could not be started: ")
    assert "damaged parameter" in row.reason


def test_the_command_follows_and_shows_the_table(kfp_server, tmp_path, hasten):
    path = write_fleet(tmp_path, 3)
    kfp_server.script = [becomes("RUNNING", task("names", "SUCCEEDED")), becomes("SUCCEEDED")]
    code, out, err = hasten("submit", path, "--host", kfp_server.url)
    assert code == 3, err
    assert "names: succeeded" in err
    assert "its run was never started" in out
    assert "0 of 3 models meet their goal, 0 do not, 3 failed." in out


def test_the_summary_asks_the_server_for_each_model(kfp_server, fleet):
    server, child = a_child(kfp_server, fleet)
    kfp_server.fate = fates(m1="FAILED")
    for job in fleet.jobs[:2]:
        climb(job, server, child, 0.0, lambda seconds: None)
    rows = {row.name: row for row in summary_of(connect(server), server, fleet, "s1").rows}
    assert rows["model-000"].state is State.MISSED
    assert rows["model-001"].reason == "failed: see its run"
    assert rows["model-002"].reason == "its run was never started"


def test_local_files_are_refused_for_every_job_at_once(kfp_server, tmp_path, hasten):
    path = write_fleet(tmp_path, 2)
    for name in ("a", "b"):
        (tmp_path / "jobs" / f"{name}.yaml").write_text(f"name: {name}\nmodel: {{onnx: m.onnx}}\n")
    code, _, err = hasten("submit", path, "--host", kfp_server.url)
    assert code == 2
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["a", "b"]
    assert not kfp_server.pipelines


def test_modes_of_a_fleet_stand_in_its_file(kfp_server, tmp_path, hasten):
    code, _, err = hasten("submit", write_fleet(tmp_path, 1), "--host", kfp_server.url, "--mode", "exhaustive")
    assert code == 2
    assert "write it into `defaults` of the fleet file" in err


def test_a_pod_finds_the_server_and_its_own_token(tmp_path, monkeypatch):
    for name in ("KF_PIPELINES_ENDPOINT", "HASTEN_KFP_TOKEN", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert server_of_the_pod("", "team-a") == Server(children.IN_CLUSTER, "team-a")
    (tmp_path / "token").write_text("t0ken\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert server_of_the_pod("http://other", "").token == "t0ken"
    assert server_of_the_pod("http://other", "").host == "http://other"
