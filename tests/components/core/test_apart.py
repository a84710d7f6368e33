"""Work in a process apart: answers, exceptions, crashes, hangs and memory."""

import sys
import time

import pytest

from components.core.apart import DiedError, End, run_apart

WORKER = """
import json, os, signal, sys, time
from pathlib import Path

request = json.loads(Path(sys.argv[1]).read_text())
print("before", request["do"], file=sys.stderr, flush=True)
if request["do"] == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if request["do"] == "hang":
    time.sleep(60)
if request["do"] == "raise":
    raise RuntimeError("no such thing")
if request["do"] == "eat":
    eaten = []
    while True:
        eaten.append(b"x" * 2**23)
        time.sleep(0.01)
if request["do"] == "feed":  # its child eats
    import subprocess

    child = subprocess.Popen([sys.executable, "-c", "import time; eaten = b'x' * 2**28; time.sleep(60)"])
    Path(request["pid"]).write_text(str(child.pid))
    child.wait()
if request["do"] == "stop halfway":
    Path(sys.argv[2]).write_text(json.dumps({"first": "half"}))
    os.kill(os.getpid(), signal.SIGABRT)
if request["do"] == "break off":
    Path(sys.argv[2]).write_text('{"first": "ha')
    os.kill(os.getpid(), signal.SIGABRT)
if request["do"] == "answer":
    Path(sys.argv[2]).write_text(json.dumps({"pid": os.getpid()}))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "apart_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert sys.executable
    return "apart_worker"


def test_the_answer_comes_from_another_process(module):
    import os

    assert run_apart(module, {"do": "answer"}, 60)["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("crash", "its process crashed with SIGSEGV; its last words: before crash"),
        ("raise", "its process ended with code 1; its last words: RuntimeError: no such thing"),
        ("nothing", "its process ended with code 0; its last words: before nothing"),
    ],
)
def test_how_it_died_is_said(module, task, words):
    with pytest.raises(DiedError) as caught:
        run_apart(module, {"do": task}, 60)
    assert str(caught.value) == words


def test_a_hang_ends_at_the_time_limit(module):
    started = time.monotonic()
    with pytest.raises(DiedError, match=r"longer than 1\.5 s") as caught:
        run_apart(module, {"do": "hang"}, 1.5)
    assert time.monotonic() - started < 30
    assert caught.value.end is End.TIME


def test_a_hang_ends_at_the_time_limit_while_memory_is_watched(module):
    with pytest.raises(DiedError, match=r"longer than 1\.5 s") as caught:
        run_apart(module, {"do": "hang"}, 1.5, memory_limit=2**30)
    assert caught.value.end is End.TIME


def test_what_eats_memory_is_stopped_and_said(module):
    with pytest.raises(DiedError) as caught:
        run_apart(module, {"do": "eat"}, 60, memory_limit=150 * 2**20)
    assert str(caught.value) == "it used more than 150 MiB of memory and was stopped"
    assert caught.value.end is End.MEMORY


def test_memory_of_its_children_counts_and_they_end_too(module, tmp_path):
    import psutil

    def gone(pid):
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    with pytest.raises(DiedError, match="more than 150 MiB"):
        run_apart(module, {"do": "feed", "pid": str(tmp_path / "pid")}, 60, memory_limit=150 * 2**20)
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child)


def test_under_its_limits_nothing_changes(module):
    assert run_apart(module, {"do": "answer"}, 60, memory_limit=2**30)["pid"]
    with pytest.raises(DiedError, match="crashed with SIGSEGV") as caught:
        run_apart(module, {"do": "crash"}, 60, memory_limit=2**30)
    assert caught.value.end is End.CRASHED


@pytest.mark.parametrize(("task", "partial"), [("stop halfway", {"first": "half"}), ("break off", {}), ("raise", {})])
def test_what_was_answered_before_the_end_is_kept(module, task, partial):
    with pytest.raises(DiedError) as caught:
        run_apart(module, {"do": task}, 60)
    assert caught.value.partial == partial
