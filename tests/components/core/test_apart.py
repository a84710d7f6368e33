"""Work in a process apart: answers, exceptions, crashes and hangs."""

import sys
import time

import pytest

from components.core.apart import DiedError, run_apart

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
    with pytest.raises(DiedError, match=r"longer than 1\.5 s"):
        run_apart(module, {"do": "hang"}, 1.5)
    assert time.monotonic() - started < 30
