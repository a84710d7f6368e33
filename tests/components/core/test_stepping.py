import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.core import stepping
from components.core.errors import StepError, UserError
from components.core.stepping import listening, one_line, progress, step


@pytest.fixture
def events(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(stepping.EVENTS, str(path))
    monkeypatch.setattr(stepping, "_last", ("", 0.0))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_reports_its_start_progress_and_end(events):
    with step("surgery", rung="int8"):
        progress("folding constants", 1, 4)
    started, working, done = events()
    assert (started["step"], started["state"], started["rung"]) == ("surgery", "started", "int8")
    assert (working["step"], working["message"], working["done"], working["total"]) == (
        "surgery",
        "folding constants",
        1,
        4,
    )
    assert done["state"] == "done"
    assert done["seconds"] >= 0
    assert stepping.STEP not in os.environ


@pytest.mark.parametrize(
    ("error", "code", "kind", "line"),
    [
        (UserError("no such file:\n  a.onnx"), 2, "user", "no such file: a.onnx"),
        (StepError("every variant failed"), 1, "step", "every variant failed"),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), 1, "step", "no space left on the disk while writing /x/y"),
    ],
)
def test_our_errors_are_one_line_and_an_exit_code(events, capsys, error, code, kind, line):
    with pytest.raises(SystemExit) as caught, step("export"):
        raise error
    assert caught.value.code == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"export: {line}")
    assert printed.count("\n") == 1
    last = events()[-1]
    assert (last["state"], last["kind"]) == ("failed", kind)
    assert last["message"].startswith(line)


def test_other_errors_keep_their_traceback(events):
    with pytest.raises(ZeroDivisionError), step("export"):
        print(1 / 0)
    assert events()[-1]["kind"] == "internal"
    assert events()[-1]["message"] == "ZeroDivisionError: division by zero"


def test_repeated_progress_is_thinned_but_its_end_is_kept(events):
    with step("fetch"):
        for done in range(1, 1001):
            progress("hashing", done, 1000)
    lines = [event for event in events() if event["state"] == "progress"]
    assert len(lines) < 20
    assert lines[-1]["done"] == 1000


def test_progress_reaches_a_listener_without_a_run(monkeypatch):
    monkeypatch.delenv(stepping.EVENTS, raising=False)
    monkeypatch.setattr(stepping, "_last", ("", 0.0))
    heard = []
    with listening(lambda *words: heard.append(words)):
        progress("timing", 1, 2)
    progress("nobody hears this")
    assert heard == [("timing", 1, 2)]


def test_lost_events_do_not_stop_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv(stepping.EVENTS, str(tmp_path / "no" / "folder" / "events.jsonl"))
    with step("fetch"):
        progress("working")


def test_lines_of_two_processes_never_mix(tmp_path):
    path = tmp_path / "events.jsonl"
    code = (
        "from components.core.stepping import step, progress\n"
        "with step('a'):\n for i in range(300): progress(str(i) + 'x' * 3000)"
    )
    environment = {**os.environ, stepping.EVENTS: str(path)}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3 * 302


CHILD = """
import subprocess, sys, time
from components.core.stepping import step
with step("benchmark"):
    worker = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
    print(worker.pid, flush=True)
    time.sleep(60)
"""


def test_a_step_and_its_workers_die_with_the_run():
    process = subprocess.Popen(
        ["sh", "-c", f"{sys.executable} -c '{CHILD}'; true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, stepping.LIFELINE: "stdin"},
        start_new_session=True,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.stdin.close()  # what the kernel does when the run is killed
    assert process.wait(timeout=10) != 0
    deadline = time.monotonic() + 5
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_line_names_the_type_of_a_foreign_error():
    assert one_line(KeyError("a")) == "KeyError: 'a'"
    assert one_line(RuntimeError()) == "RuntimeError"
    assert one_line(UserError("a\n b")) == "a b"
