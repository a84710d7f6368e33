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

import numpy.typing as npt

from components.core.feeds import Batch, feed


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


def input_names(model: Any) -> list[str]:
    """A model's inputs in order, as whoever made it named them; a number where one has no name.

    Args:
        model: an `openvino.Model`, or a compiled one.
    """
    return [min(port.get_names(), default=f"input {number}") for number, port in enumerate(model.inputs)]


def feed_of(model: Any, batch: Batch) -> list[npt.NDArray[Any]]:
    """The arrays of a batch in the order of the model's inputs.

    Raises:
        StepError: the model wants more than the task gives.
    """
    names = input_names(model)
    values = feed(batch, names)
    return [values[name] for name in names]
