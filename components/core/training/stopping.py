"""When training ends early: its limits are reached, or somebody asks it to stop."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from components.core.contracts.job import Training
from components.core.errors import StepError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what Kubernetes sends before it takes a pod away."""


class StoppedError(StepError):
    """Training was asked to stop; the message says how it goes on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class DivergedError(StepError):
    """Training came to nothing: its losses or gradients are no numbers any more."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Takes SIGINT and SIGTERM for the length of the block; what it yields says which one came, 0 if none did.

    A second one of them acts as it would have without: somebody is in a hurry.
    """
    asked = 0
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield lambda: 0
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def take(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = number
        _restore()

    def _restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, take)
    try:
        yield lambda: asked
    finally:
        _restore()


def limit_reached(settings: Training, wall_seconds: float, core_seconds: float) -> str:
    """Which limit of the settings is used up, as a person would say it; nothing while there is some left."""
    for name, limit, used in (
        ("max_time", settings.max_time, wall_seconds),
        ("max_core_time", settings.max_core_time, core_seconds),
    ):
        if limit is not None and used >= limit:
            return f"training.{name} ({limit:g} s) is used up"
    return ""


def until_limit(settings: Training, wall_seconds: float, core_seconds: float) -> float:
    """Seconds until a limit ends the training, at the pace of its processor time so far; infinite without a limit."""
    left = math.inf
    if settings.max_time is not None:
        left = settings.max_time - wall_seconds
    if settings.max_core_time is not None and core_seconds > 0:
        left = min(left, (settings.max_core_time - core_seconds) * wall_seconds / core_seconds)
    return max(left, 0.0)
