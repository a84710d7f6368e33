"""Ctrl-C, whenever it comes.

Python raises `KeyboardInterrupt` wherever it is, and where a native module is being loaded, that becomes another error
("initialization failed") or a crash. So the signal waits until the module is loaded.
"""

import signal
import threading
from importlib.machinery import ExtensionFileLoader
from types import FrameType

_AGAIN = 0.02
"""Seconds after which it is tried again."""
_LOADING = (ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__)


def listen() -> None:
    """Takes over SIGINT from Python's own handler, where that is in place: a signal that is ignored stays so."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _take)


def _take(number: int, frame: FrameType | None) -> None:
    if not _is_loading(frame):
        raise KeyboardInterrupt
    later = threading.Timer(_AGAIN, signal.pthread_kill, (threading.main_thread().ident, number))
    later.daemon = True
    later.start()


def _is_loading(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _LOADING:
            return True
        frame = frame.f_back
    return False
