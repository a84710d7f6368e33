"""Ctrl-C in the first moments of a command, where Python is busy with imports."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import interrupts

ROOT = Path(__file__).parents[2]

PULLS = """
import signal, sys
from pipelines.cli import start
sys.argv = ["hasten", "doctor"]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
        return None
sys.meta_path.insert(0, Finder())
start.main()
"""


@pytest.mark.parametrize("module", ["typer", "pipelines.cli.app", "numpy._core._multiarray_umath"])
def test_a_signal_in_an_import_ends_the_command_cleanly(module):
    done = subprocess.run([sys.executable, "-c", PULLS.format(module=module)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""


def test_a_signal_waits_until_a_native_module_is_loaded(monkeypatch):
    loaded = []

    def load(_self, _spec):
        signal.raise_signal(signal.SIGINT)
        loaded.append(True)

    # The loader's own code, with something else in it.
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(interrupts, "_LOADING", (load.__code__,))
    try:
        interrupts.listen()
        load(None, None)
        assert loaded
        with pytest.raises(KeyboardInterrupt):
            signal.sigtimedwait([], 2)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_of_imports_it_is_raised_at_once():
    before = signal.getsignal(signal.SIGINT)
    try:
        interrupts.listen()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.listen()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
