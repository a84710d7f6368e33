"""The whole ladder on a real, tiny detector: killed at every step, resumed, run again, stopped, refused."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_job import command, environment, hasten, make_tiny_job

from components.core.contracts.leaderboard import Leaderboard

pytestmark = pytest.mark.slow
STEPS = [
    ("", "prepare"),
    ("", "fetch"),
    ("", "export"),
    ("", "benchmark"),
    ("int8", "decide"),
    ("int8", "surgery"),
    ("int8", "int8"),
    ("int8", "engine"),
    ("int8", "benchmark"),
    ("fp16", "decide"),
    ("", "leaderboard"),
    ("", "report"),
    ("", "publish"),
]
TIMEOUT = 600.0


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Folder with the tiny job; its step cache is shared by this file's tests, as a user's is by runs."""
    folder = tmp_path_factory.mktemp("ladder")
    make_tiny_job(folder / "job")
    return folder


def start(place: Path, *arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("run", place / "job" / "job.yaml", *arguments),
        env=environment(place / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def events(out: Path) -> list[dict[str, Any]]:
    try:
        lines = (out / ".hasten" / "events.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def wait_until(process: "subprocess.Popen[str]", condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reached(out: Path, began: float, rung: str, step: str) -> bool:
    """Whether a step started since `began`; most steps do not know which rung they work for."""
    return any(
        event["state"] == "started"
        and event["step"] == step
        and event.get("rung") in (("", "baseline") if not rung else ("", rung))
        for event in events(out)
        if event["time"] > began
    )


def at_work(out: Path) -> list[int]:
    """Processes that write events of a run in `out`."""
    mark = f"HASTEN_EVENTS={out}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def states(out: Path) -> dict[tuple[str, str], str]:
    record = json.loads((out / "run.json").read_text())
    return {(step["rung"], step["step"]): step["state"] for step in record["steps"]}


def measured(board: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a board's rows."""
    keys = ("id", "rung", "status", "latency_ms", "speedup", "accuracy", "size_bytes", "sha256")
    return {row["id"]: {key: row[key] for key in keys} for row in board["candidates"]}


def test_killed_at_every_step_a_run_resumes_and_keeps_what_it_measured(place):
    out = place / "killed"
    boards: list[dict[str, Any]] = []
    for rung, step in STEPS:
        began = time.time()
        process = start(place, "--out", out)
        wait_until(process, lambda began=began, rung=rung, step=step: reached(out, began, rung, step))
        process.kill()
        process.wait()
        boards += [event["board"] for event in events(out) if event["state"] == "board"]
        deadline = time.monotonic() + 20
        while at_work(out):
            assert time.monotonic() < deadline, "a step outlived its run"
            time.sleep(0.05)
        assert not (out / "leaderboard.json").exists()

    process = start(place, "--out", out, "--json")
    printed, log = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, log
    board = json.loads(printed)
    record = json.loads((out / "run.json").read_text())
    assert record["starts"] == len(STEPS) + 1
    assert record["stage"] == "finished"
    # Every measurement that a killed start completed is the one on the final board.
    assert boards
    for row_id, row in measured(boards[-1]).items():
        assert measured(board)[row_id] == row
    reused = [key for key, state in states(out).items() if state == "cached"]
    for key in [("", "export"), ("", "benchmark"), ("int8", "surgery"), ("int8", "engine"), ("int8", "benchmark")]:
        assert key in reused
    assert json.loads((out / "leaderboard.json").read_text()) == board
    assert Leaderboard.model_validate(board).goal_met
    # What a killed start finished is paid for by the run, once; the rest of the ladder was not needed.
    bills = {bill["rung"]: bill for bill in board["ledger"]["rungs"]}
    assert bills[""]["steps"] == ["fetch", "export", "benchmark"]
    assert (bills["int8"]["steps"], bills["int8"]["cached"]) == (["surgery", "int8", "engine", "benchmark"], ["export"])
    saved = board["ledger"]["not_climbed"][0]
    assert (saved["rung"], saved["why"]) == ("fp16", "the goal was met before")
    assert saved["wall_seconds"] > 0
    assert "fp16 was not climbed (the goal was met before); saved at least" in log
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "report.md").read_text().count("int8-onnxruntime") >= 1
    published = re.search(r"^published: +file://(\S+)$", log, re.MULTILINE)
    assert published is not None
    assert any(Path(published[1]).iterdir())

    # A finished run that is taken up again has nothing left to do.
    began = time.monotonic()
    again = hasten(place / "cache", "run", place / "job" / "job.yaml", "--out", out, "--json", "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == board
    assert states(out)["int8", "benchmark"] == states(out)["", "report"] == "cached"
    assert states(out)["", "publish"] == "done"
    assert time.monotonic() - began < 60


def test_a_new_run_measures_again_and_reuses_the_models(place):
    # Another folder and a goal that no rung meets: models come from the same recipe, and exit code 3 says "not met".
    fields = yaml.safe_load((place / "job" / "job.yaml").read_text())
    fields["goal"] = {"min_speedup": "100000x", "max_accuracy_drop": 1.0}
    fields["ladder"] = {"rungs": ["int8", "fp16"]}  # test_ladder_amp.py climbs the next one
    (place / "job" / "strict.yaml").write_text(yaml.safe_dump(fields))
    out = place / "again"
    done = hasten(place / "cache", "run", place / "job" / "strict.yaml", "--out", out)
    assert done.returncode == 3, done.stderr
    assert "Goal not met." in done.stdout
    found = states(out)
    for key in [("", "fetch"), ("", "export"), ("int8", "surgery"), ("int8", "int8"), ("int8", "engine")]:
        assert found[key] == "cached", key
    bills = {bill["rung"]: bill for bill in json.loads((out / "leaderboard.json").read_text())["ledger"]["rungs"]}
    assert bills["int8"]["steps"] == ["benchmark"]
    assert bills["fp16"]["cached"] == ["export", "surgery"]
    for key in [("", "benchmark"), ("int8", "benchmark"), ("fp16", "fp16"), ("", "report")]:
        assert found[key] == "done", key
    # The second rung exports and operates on the same bundle: the work of the first.
    assert found["fp16", "export"] == found["fp16", "surgery"] == "cached"
    # A rung's skipped candidate keeps its reason, and a winner short of the goal is not published as one.
    board = json.loads((out / "leaderboard.json").read_text())
    assert not board["goal_met"]
    assert all(row["reason"] for row in board["candidates"] if row["status"] != "ok")
    record = json.loads((out / "run.json").read_text())
    assert record["wall_seconds"] > record["step_seconds"] > 0
    assert record["overhead"] == pytest.approx(1 - record["step_seconds"] / record["wall_seconds"], abs=1e-3)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(place):
    out = place / "stopped"
    process = start(place, "--out", out)
    wait_until(process, lambda: any(event["step"] == "benchmark" for event in events(out)))
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 130
    last = log.strip().splitlines()[-1]
    assert last.startswith("hasten: stopped (SIGINT); the same command goes on where it stopped: hasten run ")
    assert "Traceback" not in log
    assert not at_work(out)
    assert json.loads((out / "run.json").read_text())["stage"] == "stopped"


def test_two_runs_in_one_folder(place):
    out = place / "shared"
    first = start(place, "--out", out)
    try:
        wait_until(first, lambda: events(out))
        second = hasten(place / "cache", "run", place / "job" / "job.yaml", "--out", out)
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 2
    assert f"another run (process {first.pid}) is at work there" in second.stderr.splitlines()[-1]


def test_a_mistake_that_only_a_step_can_see_is_one_line_and_exit_2(place):
    fields = yaml.safe_load((place / "job" / "job.yaml").read_text())
    fields["model"]["kwargs"] = {"num_classes": 5}  # the weights are of two classes
    (place / "job" / "classes.yaml").write_text(yaml.safe_dump(fields))
    out = place / "mismatch"
    done = hasten(place / "cache", "run", place / "job" / "classes.yaml", "--out", out)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("hasten: export: ")
    assert "box_predictor" in last
    assert done.stderr.count("export: started") == 1  # told at once: trying again would change nothing
    assert "Traceback" not in done.stderr + done.stdout
    assert sorted(path.name for path in out.iterdir()) == [".hasten", "run.json", "run.log"]


def test_a_step_that_breaks_is_one_line_with_the_log_and_exit_1(place):
    (place / "job" / "broken_models.py").write_text("def detector():\n    return 1 / 0\n")
    fields = yaml.safe_load((place / "job" / "job.yaml").read_text())
    fields["model"]["factory"] = "broken_models:detector"  # found beside the job file
    (place / "job" / "broken.yaml").write_text(yaml.safe_dump(fields))
    out = place / "broken"
    done = hasten(place / "cache", "run", place / "job" / "broken.yaml", "--out", out)
    assert done.returncode in (1, 2), done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("hasten: export: ")
    assert "division by zero" in last
    assert "Traceback" not in done.stderr + done.stdout


def test_a_full_disk_is_one_line_and_exit_1(place, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        done = hasten(
            place / "fresh-cache", "run", place / "job" / "job.yaml", "--out", tmp_path / "o", "--cache", disk
        )
    finally:
        subprocess.run(["umount", disk], check=False)
    assert done.returncode in (1, 2), done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "no space left" in last
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "o" / "leaderboard.json").exists()
