"""OpenVINO does not take the thread's signal stack away: a signal after it would kill the process."""

import ctypes
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest

from components.core.runtimes.openvino_core import shared_core, sharing_core


class _SignalStack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def _stack_is_there() -> bool:
    """Whether the alternate signal stack of this thread, if it has one, is mapped."""
    stack = _SignalStack()
    assert ctypes.CDLL(None, use_errno=True).sigaltstack(None, ctypes.byref(stack)) == 0
    if not stack.address:
        return True
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(number, 16) for number in line.split(" ", 1)[0].split("-"))
        if first <= stack.address < last:
            return re.match(r"\S+ rw", line) is not None
    return False


def _model():
    ops = openvino.opset13
    image = ops.parameter([1, 3, 8, 8], np.float32, name="image")
    weights = ops.constant(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32))
    conv = ops.convolution(image, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return openvino.Model([ops.result(ops.relu(conv))], [image], "net")


def _use_in_turns() -> None:
    """What NNCF and we do in one process: models compiled, the older one let go before the younger one."""
    older = openvino.Core().compile_model(_model(), "CPU")
    younger = openvino.Core().compile_model(_model(), "CPU")
    del older, younger


def child(shared: bool) -> None:
    """Runs in a process of its own; dies of SIGSEGV where the stack is gone."""
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if shared:
        with sharing_core():
            _use_in_turns()
    else:
        _use_in_turns()
    print("there" if _stack_is_there() else "gone", flush=True)
    subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signal stacks are looked up in /proc")
def test_cores_in_turns_leave_the_signal_stack_where_it_was():
    here = Path(__file__)
    code = f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem}; {here.stem}.child(True)"
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "there\n"), done.stderr


def test_a_library_that_makes_a_core_gets_the_shared_one_within_the_block_only():
    with sharing_core():
        assert openvino.Core() is shared_core()
    assert isinstance(openvino.Core, type)
    with pytest.raises(RuntimeError, match="stop"), sharing_core():
        raise RuntimeError("stop")
    assert isinstance(openvino.Core, type)
