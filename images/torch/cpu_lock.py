"""Prints a lock file without CUDA: for torch's CPU build, which has other hashes than the one that the lock names.

``python3 cpu_lock.py requirements.txt``
"""

import re
import sys
from pathlib import Path

CUDA = re.compile(r"^(nvidia-|cuda-|triton==|cupy-|tensorrt-rtx)")


def cpu_lock(text: str) -> str:
    """The pinned versions of a lock file, without hashes and without what only CUDA needs."""
    pins = re.findall(r"^[A-Za-z0-9][^\s;\\]*==[^\s;\\]+(?: ; [^\\\n]*[^\s\\])?", text, re.MULTILINE)
    return "".join(f"{pin}\n" for pin in pins if not CUDA.match(pin))


if __name__ == "__main__":
    sys.stdout.write(cpu_lock(Path(sys.argv[1]).read_text()))
