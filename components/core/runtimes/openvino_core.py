"""One OpenVINO `Core` for the whole process.

OpenVINO's CPU plugin gives the thread that loads it an alternate signal stack, and frees that stack with the plugin.
Where a second plugin was loaded in between, the thread keeps a stack that is gone: the next signal that Python handles
(SIGCHLD, once a torch `DataLoader` has had workers) then kills the process with SIGSEGV. Seen with OpenVINO 2026.4.1.
A `Core` that lives as long as the process never frees it.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@functools.cache
def shared_core() -> Any:
    """The process's `openvino.Core`, with its CPU plugin loaded."""
    import openvino

    core = openvino.Core()
    core.get_versions("CPU")
    return core


@contextmanager
def sharing_core() -> Iterator[None]:
    """For a library that makes a `Core` a model (NNCF does): within the block `openvino.Core()` is the shared one."""
    import openvino

    core, made = shared_core(), openvino.Core
    openvino.Core = lambda: core
    try:
        yield
    finally:
        openvino.Core = made
