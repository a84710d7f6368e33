"""Loads a `.pt2` file (torch.export) without running code that hides in it.

`torch.export.load` unpickles parts of the archive with no restriction, loads compiled libraries, and evaluates symbolic
expressions as Python. So the archive is looked through first, with the reader that torch itself uses, and refused when
it has any of these. What is left is a graph of torch operators and raw tensors.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.errors import UserError
from components.core.models import refuse_compressed

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"'\w+'")
"""Symbols are written as ``Symbol('s0')``."""
_EXPRESSION = re.compile(r"[\w\s+\-*/%()<>=!&|~,.]*")
_UNSAFE_EXPRESSION = re.compile(r"__|\.\s*[A-Za-z_]|\b[a-z_]\w*\s*\(")
"""Dunder names, attributes and calls of lower-case names: torch's own symbolic functions are all capitalised."""


def load_program(path: Path) -> "torch.nn.Module":
    """The exported program as a module that is called like the exported model.

    Raises:
        UserError: the file is missing, damaged, of the format before torch 2.9, or has pickled objects or code in it.
    """
    import torch

    if not path.is_file():
        raise UserError(f"program {path.name} does not exist at {path}; check model.program")
    refuse_compressed(path, f"program {path.name}")
    _refuse_code(path)
    try:
        program = torch.export.load(path)
        # The guards are Python source in the file; the shapes are the job's own and need no check.
        return program.module(check_guards=False)
    except Exception as error:
        raise UserError(
            f"program {path.name} cannot be loaded: {type(error).__name__}: {error}".split("\n")[0]
        ) from error


def _refuse_code(path: Path) -> None:
    from torch.export.pt2_archive._package import PT2ArchiveReader

    advice = "save it again with torch.export.save of torch 2.9 or later"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if "version" in names:
            raise UserError(f"program {path.name} has the format of torch 2.8 or earlier; {advice}")
        with PT2ArchiveReader(str(path)) as reader:
            records = {name: reader.read_bytes(name) for name in reader.get_file_names() if not _is_raw_tensor(name)}
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"program {path.name} is damaged or no .pt2 file; {advice}") from error
    for name, content in records.items():
        found = _code_in(name, content)
        if found:
            raise UserError(f"program {path.name} has {found} in {name}, which is never run; {advice}")


def _is_raw_tensor(name: str) -> bool:
    return re.fullmatch(r"data/(weights/weight|constants/tensor)_\d+", name) is not None


def _code_in(name: str, content: bytes) -> str:
    """What makes the record unsafe, or nothing."""
    if name.startswith("data/aotinductor/"):
        return "compiled code"
    if name.startswith("data/constants/") and not name.endswith((".json", ".pt")):
        return "a pickled object"
    if name.endswith(".pt"):
        return "" if _holds_only_tensors(content) else "a pickled object"
    if name.endswith(".json"):
        return _code_in_json(json.loads(content))
    return ""


def _holds_only_tensors(content: bytes) -> bool:
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        return not content
    return True


def _code_in_json(document: Any) -> str:
    for key, value in _fields(document):
        if key == "use_pickle" and value:
            return "a pickled object"
        if key == "expr_str" and not _is_arithmetic(str(value)):
            return "Python code"
    return ""


def _is_arithmetic(expression: str) -> bool:
    plain = _NAME.sub("", expression)
    return bool(_EXPRESSION.fullmatch(plain)) and not _UNSAFE_EXPRESSION.search(plain)


def _fields(document: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, value
            yield from _fields(value)
    elif isinstance(document, list):
        for value in document:
            yield from _fields(value)
