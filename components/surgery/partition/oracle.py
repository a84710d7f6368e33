"""Asks NVIDIA's parser and builder, and keeps every answer in a file.

So a question that kills the process is asked only once: the parent notes the death as the answer and starts the
process again.
"""

import hashlib
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from components.core.contracts.run_plan import Profile
from components.core.files import sha256_file, write_bytes_atomic
from components.core.onnx_files import save_onnx
from components.surgery.partition.native import Native, Verdict

TRACE = "parsing"
"""File that names the node that is being parsed."""
ASKING = "asking"
"""File that names the question while it is asked."""
QUESTION_LIMIT = 300
"""Seconds that one parse and build may take."""


class Oracle:
    """The parser and the builder.

    Args:
        module: `tensorrt_rtx` or `tensorrt`.
        folder: that keeps the answers.
    """

    def __init__(self, module: str, folder: Path) -> None:
        self._native = Native(module, folder / TRACE)
        self._folder = folder
        self.version = self._native.version
        self.builds = 0
        """Engines tried, those that were answered before included."""

    def unsupported(self, model: onnx.ModelProto) -> dict[str, str]:
        """See `Native.unsupported`; empty where the question kills the process."""
        path, key = self._put(model, "unsupported")
        if (known := self._answer(key)) is not None:
            return dict(known["refused"])
        names = [node.name for node in model.graph.node]
        with self._question(key):
            found = self._native.unsupported(path, names)
        self._keep(key, Verdict(refused=found))
        return found

    def engine(self, model: onnx.ModelProto, profiles: Mapping[str, Profile]) -> tuple[Verdict, Path]:
        """See `Native.engine`; the path is that of the engine, where there is one."""
        self.builds += 1
        path, key = self._put(model, json.dumps({name: one.model_dump() for name, one in profiles.items()}))
        file = self._folder / f"{key}.engine"
        if (known := self._answer(key)) is not None:
            return Verdict(**known), file
        names = [node.name for node in model.graph.node]
        with self._question(key):
            verdict, engine = self._native.engine(path, names, profiles)
        if verdict.ok:
            write_bytes_atomic(file, engine)
        self._keep(key, verdict)
        return verdict, file

    def _put(self, model: onnx.ModelProto, question: str) -> tuple[Path, str]:
        files = save_onnx(model, self._folder / "model.onnx")
        return files[0], hashlib.sha256(json.dumps([question, *map(sha256_file, files)]).encode()).hexdigest()

    def _answer(self, key: str) -> dict[str, Any] | None:
        path = self._folder / f"{key}.json"
        return dict(json.loads(path.read_text())) if path.exists() else None

    def _keep(self, key: str, verdict: Verdict) -> None:
        write_bytes_atomic(self._folder / f"{key}.json", json.dumps(asdict(verdict)).encode())

    @contextmanager
    def _question(self, key: str) -> Iterator[None]:
        asking = self._folder / ASKING
        asking.write_text(key)
        # Native code does not come back for a Python handler: the signal's default, the end of the process, it is.
        previous = signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, QUESTION_LIMIT)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            asking.unlink()


def note_death(folder: Path, words: str) -> bool:
    """Makes the death of the process the answer to what it was asked.

    Returns:
        Whether it was asked anything; if not, something else killed it.
    """
    asking = folder / ASKING
    if not asking.exists():
        return False
    if "SIGALRM" in words:
        words = f"the parser or the builder took longer than {QUESTION_LIMIT} s"
    words = f"asked about it, {words}"
    trace = folder / TRACE
    node = trace.read_text(errors="replace") if trace.exists() else ""
    answer = asdict(Verdict(refused={node: words} if node else {}, words=words))
    write_bytes_atomic(folder / f"{asking.read_text()}.json", json.dumps(answer).encode())
    asking.unlink()
    return True
