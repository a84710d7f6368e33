"""The workflow for plain Argo, run: every step as the process that its pod would run, everything handed over in S3."""

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from tiny_job import ROOT, TESTS, make_tiny_job

from components.core.contracts.job import Rung
from components.core.contracts.leaderboard import Leaderboard
from components.core.s3 import S3, S3Location
from components.core.storage import materialize
from components.publish.published import read_published
from fixtures.jobs import make_job
from fixtures.seaweedfs import S3Server
from fixtures.workflow_interpreter import Interpreter
from pipelines.argo import handover, step
from pipelines.argo.workflow import Cluster, workflow_template
from pipelines.ladder.recipe import prepare_run


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


def tiny_job_in(bucket: str, folder: Path, **changes: object) -> str:
    """The tiny job with all of its files in S3, as YAML."""
    path = make_tiny_job(folder)
    fields = yaml.safe_load(path.read_text())
    for name in ("weights.pt", "train", "test"):
        handover.upload(folder / name, S3Location(bucket, f"job/{name}"))
    fields["model"]["weights"] = f"s3://{bucket}/job/weights.pt"
    for split in ("train", "test"):
        fields["data"][split] = {key: f"s3://{bucket}/job/{value}" for key, value in fields["data"][split].items()}
    fields["publish"] = {"to": f"s3://{bucket}/models"}
    return yaml.safe_dump(fields | changes)


def run(bucket: str, job: str, cache: Path, run_id: str, started: str) -> tuple[dict[str, str], list[str]]:
    """Outputs of the workflow, and the steps that ran."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)]),
        "HASTEN_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
    }
    template = yaml.safe_load(yaml.safe_dump(workflow_template(Cluster(), f"s3://{bucket}/argo")))
    interpreter = Interpreter(template, {"job": job, "run_id": run_id, "started": started}, environment)
    outputs = interpreter.run()
    return outputs, [name for name, _ in interpreter.log]


@pytest.mark.slow
def test_the_whole_ladder_climbs_stops_and_publishes(bucket: str, tmp_path: Path) -> None:
    job = tiny_job_in(bucket, tmp_path / "job")
    started = str(time.time())
    outputs, steps = run(bucket, job, tmp_path / "cache", "first", started)
    board = Leaderboard.model_validate_json(handover.resolved(outputs["board"]))
    assert board.goal_met
    assert board.winner == "int8-onnxruntime"
    # INT8 meets the goal, so the rungs above it are decided on and not climbed.
    assert steps.count("benchmark") == 2
    assert "fp16" not in steps
    assert steps.count("decide") == steps.count("pass_on") + 1
    assert steps[-1] == "publish"
    report = materialize(outputs["report_uri"])
    assert (report / "report.html").stat().st_size > 10_000
    published = read_published(outputs["published_uri"])
    assert published.provenance.run_id == "first"
    assert published.board == board
    # Each pod's cost came along with what it made, through the store.
    assert board.ledger is not None
    bills = {bill.rung: bill for bill in board.ledger.rungs}
    assert bills[""].steps == ["fetch", "export", "benchmark"]
    assert bills["int8"].steps == ["surgery", "int8", "engine", "benchmark"]
    assert bills["int8"].cached == ["export"]
    assert min(bill.core_seconds for bill in bills.values()) > 0
    assert [each.rung for each in board.ledger.not_climbed] == [str(rung) for rung in Rung if rung != "int8"]
    # The long texts travel by reference; what conditions compare travels by itself.
    assert outputs["board"].startswith(f"@s3://{bucket}/argo/runs/pod-")

    # Again, as a retry of the workflow: what was measured counts, and the same version stays.
    again, _ = run(bucket, job, tmp_path / "other-cache", "first", started)
    assert handover.resolved(again["board"]) == handover.resolved(outputs["board"])
    assert again["published_uri"] == outputs["published_uri"]


def test_a_step_takes_and_gives_what_lies_in_s3(bucket: str, tmp_path: Path) -> None:
    job = tiny_job_in(bucket, tmp_path / "job")
    prepared = prepare_run(job, "", "", "code", "run")
    arguments = ["fetch", f"--root=s3://{bucket}/argo", "--run=pod-a", f"--out={tmp_path / 'out'}", "--cache"]
    arguments += [f"--param=job={handover.handed_over(prepared.recipe, S3Location(bucket, 'recipe'))}"]
    arguments += [f"--param=source_digest={prepared.source_digest}", "--param=code_version=code"]
    assert step.main(arguments) == 0
    uri = (tmp_path / "out" / "Output").read_text()
    assert uri == f"s3://{bucket}/argo/runs/pod-a/bundle"
    found = set(S3().below(S3Location(bucket, "argo/runs/pod-a/bundle")))
    assert {"model/weights.pt", "data/train/annotations.json", "fetch_card.json"} <= found
    assert len([name for name in found if name.startswith("data/test/images/")]) == 2
    # Another pod with the same inputs takes what is there; with others, or if it is gone, it works again.
    assert step.main([text.replace("pod-a", "pod-b") for text in arguments]) == 0
    assert (tmp_path / "out" / "Output").read_text() == uri
    changed = [text.replace("pod-a", "pod-c").replace("code_version=code", "code_version=new") for text in arguments]
    assert step.main(changed) == 0
    assert "/pod-c/" in (tmp_path / "out" / "Output").read_text()
    client = S3().client
    for name in found:
        client.delete_object(Bucket=bucket, Key=f"argo/runs/pod-a/bundle/{name}")
    assert step.main([text.replace("pod-a", "pod-d") for text in arguments]) == 0
    assert "/pod-d/" in (tmp_path / "out" / "Output").read_text()


def test_several_outputs_and_long_texts(bucket: str, tmp_path: Path) -> None:
    job = tiny_job_in(bucket, tmp_path / "job")
    out = tmp_path / "out"
    arguments = ["prepare", f"--root=s3://{bucket}/argo/", "--run=pod", f"--out={out}", f"--param=job={job}"]
    assert step.main([*arguments, "--param=rungs=int8"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "job",
        "recipe",
        "training",
        "search",
        "distilling",
        "source_digest",
        "code_version",
        "run_id",
        "started",
    }
    assert (out / "job").read_text() == f"@s3://{bucket}/argo/runs/pod/parameters/job"
    assert json.loads(handover.resolved((out / "job").read_text()))["ladder"]["rungs"] == ["int8"]
    assert len((out / "source_digest").read_text()) == 64


def test_every_mistake_is_one_line(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = [f"--root=s3://{bucket}/argo", "--run=pod", f"--out={tmp_path / 'out'}"]
    job = make_job(tmp_path).model_dump_json()
    for arguments, words in [
        (["teleport", *place], "hasten: teleport: step 'teleport': there is none"),
        (["keep", *place], "hasten: keep: step keep: given nothing, accepted: value; missing: value"),
        (["keep", *place, "--param=value=x", "--param=other=y"], "accepted: value"),
        (["keep", *place, f"--param=value=@s3://{bucket}/gone"], "gone does not exist; a step before this one"),
        (["keep", "--root=/tmp", *place[1:], "--param=value=x"], "is no S3 URI"),
    ]:
        assert step.main(arguments) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:  # a body's own mistakes end in its own line and exit code
        step.main(["prepare", *place, f"--param=job={job}"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
