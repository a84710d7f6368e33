"""Reads a job file: YAML or JSON text in, a Job whose paths are absolute out, or every problem in one `UserError`."""

import difflib
import os
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from components.core.contracts.job import Job
from components.core.errors import UserError
from components.core.s3 import public_url

MAX_BYTES = 256 * 1024
"""A job is a page of text; anything much larger is another file."""

MAX_ALIASES = 16
"""Enough to say the same split twice; too few to grow a page into gigabytes."""

_PATH_FIELDS = (
    ("model", "weights"),
    ("model", "program"),
    ("model", "onnx"),
    *(("data", split, field) for split in ("train", "test") for field in ("annotations", "images", "audio")),
    ("preprocess", "tokenizer"),
    *(("data", "unlabelled", field) for field in ("images", "audio", "texts")),
    ("distill", "student", "weights"),
    *(("distill", "teachers", "*", field) for field in ("weights", "program", "onnx")),
    ("distill", "answers"),
    ("publish", "to"),
)
"""Where paths stand in a job; `*` is every entry of a list."""


def read_job(path: Path) -> Job:
    """Reads a job file; relative paths in it are relative to its own folder.

    Raises:
        UserError: one line a problem, each naming the field, what was given and what is accepted.
    """
    return parse_job(read_text(path), where=path.name, folder=path.resolve().parent)


def read_text(path: Path) -> str:
    """The text of a job file or of another page of YAML.

    Raises:
        UserError: it cannot be read, is no text, or is far larger than a page.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; give a job file (YAML), for instance pipelines/examples/trees.yaml")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes; a job file has at most {MAX_BYTES}")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; give the path of a job file (YAML)") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); a job file is YAML") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def parse_job(text: str, where: str = "job", folder: Path | None = None) -> Job:
    """Reads the text of a job.

    Args:
        text: YAML; JSON is YAML too.
        where: what the error lines call it.
        folder: what relative paths are relative to; None refuses them (a pipeline parameter has no folder).

    Raises:
        UserError: one line a problem.
    """
    return build_job(read_fields(text, where), where, folder)


def build_job(fields: dict[str, Any], where: str = "job", folder: Path | None = None) -> Job:
    """The job of these fields, which are changed: relative paths become absolute.

    Args:
        fields: of `read_fields`.
        where: what the error lines call it.
        folder: what relative paths are relative to; None refuses them.

    Raises:
        UserError: one line a problem.
    """
    problems = list(resolve_paths(fields, folder))
    named = {problem.partition(":")[0] for problem in problems}
    try:
        job = Job.model_validate(fields)
    except ValidationError as error:
        problems += [problem for problem in describe(error, Job) if problem.partition(":")[0] not in named]
    if problems:
        raise UserError("\n".join(_printable(f"{where}: {problem}", 600) for problem in problems))
    return job


class _Loader(yaml.SafeLoader):
    """A safe loader with few aliases (many of them can expand to gigabytes) and without repeated keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._aliases = 0
        self._open: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Counts `*alias` and refuses one that stands inside the value it names."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            problem = None
            if self._aliases > MAX_ALIASES:
                problem = f"more than {MAX_ALIASES} aliases (*); write the values out"
            elif event.anchor in self._open:
                problem = f"the alias *{event.anchor} stands inside its own value"
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
            return super().compose_node(parent, index)
        self._open.append(getattr(event, "anchor", None) or "")
        node = super().compose_node(parent, index)
        self._open.pop()
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuses a key that is given twice; plain YAML would silently keep the last."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key_node.value!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_fields(text: str, where: str, kind: str = "job", keys: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping that a page of YAML holds: no tags, few aliases, no key twice, not too large.

    Args:
        text: YAML.
        where: what the error line calls it.
        kind: what the page is.
        keys: that it may have, for the message; default: a job's.

    Raises:
        UserError: it is no such page.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise UserError(f"{where}: more than {MAX_BYTES} bytes; a {kind} is a page of YAML")
    try:
        fields = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{where}: {line}{_printable(error.problem or 'no valid YAML', 200)}") from None
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())
        raise UserError(f"{where}: no valid YAML: {_printable(words, 200)}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply for a {kind}") from None
    except ValueError as error:  # an impossible date or number, which YAML resolves on its own
        raise UserError(f"{where}: no valid YAML: {error}") from None
    if not isinstance(fields, dict):
        given = "nothing" if fields is None else f"a {type(fields).__name__}"
        names = ", ".join(keys or Job.model_fields)
        raise UserError(f"{where}: holds {given}; a {kind} is a mapping with {names}")
    return fields


def resolve_paths(fields: dict[str, Any], folder: Path | None) -> Iterator[str]:
    """Makes the paths in `fields` absolute, in place; yields a line for each that cannot be."""
    for names in _PATH_FIELDS:
        for parent, where in _holders(fields, names[:-1]):
            value = parent.get(names[-1])
            if not isinstance(value, str) or not value:
                continue
            try:
                absolute = _absolute(value, folder)
            except ValueError as error:
                yield f"{'.'.join([*where, names[-1]])}: {error}"
                continue
            is_address = names == ("publish", "to") and "://" not in absolute
            parent[names[-1]] = f"file://{absolute}" if is_address else absolute


def _holders(fields: Any, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The mappings that a path of keys leads to, each with the keys and numbers that led there."""
    if not names:
        if isinstance(fields, dict):
            yield fields, []
    elif names[0] == "*":
        for number, entry in enumerate(fields if isinstance(fields, list) else ()):
            yield from ((holder, [str(number), *where]) for holder, where in _holders(entry, names[1:]))
    elif isinstance(fields, dict):
        yield from ((holder, [names[0], *where]) for holder, where in _holders(fields.get(names[0]), names[1:]))


def _absolute(value: str, folder: Path | None) -> str:
    scheme, separator, rest = value.partition("://")
    if separator and scheme == "s3":
        return value
    if separator and scheme != "file":
        raise ValueError(f"given {_shown(value)}, accepted: a path, file:// or s3://")
    if "\0" in value:
        raise ValueError("a path has no NUL characters")
    path = Path(rest if separator else value)
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError(f"given {_shown(value)}: there is no such user's home folder") from None
    if not path.is_absolute():
        if folder is None:
            raise ValueError(f"given {_shown(value)}, accepted: an absolute path, file:///... or s3://...")
        path = folder / path
    # Not resolve(): a link's own name says what the file is (.safetensors), its target's may not.
    return os.path.normpath(path)


def describe(error: ValidationError, contract: type[BaseModel]) -> list[str]:
    """One line a problem, with its field, what was given and what is accepted; an unknown key gets the nearest one."""
    lines = [_describe_one(problem, contract) for problem in error.errors(include_url=False)]
    return list(dict.fromkeys(lines))


def _describe_one(problem: ErrorDetails, contract: type[BaseModel]) -> str:
    loc = [str(part) for part in problem["loc"]]
    where = ".".join(loc) if loc else "the job"
    message = problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            known = list(_model_at(contract, loc[:-1]).model_fields)
            return f"{where}: unknown key{_did_you_mean(loc[-1], known)}; accepted: {', '.join(known)}"
        case "missing":
            return f"{where}: is missing{_help(contract, loc)}"
        case "value_error":
            # What the job as a whole finds names its own field.
            return f"{where}: {message}" if loc else message
        case "enum":
            accepted = str(problem.get("ctx", {}).get("expected", message)).replace("'", "").replace(" or ", ", ")
            hint = _did_you_mean(str(problem["input"]), accepted.split(", "))
            return f"{where}: given {_shown(problem['input'])}{hint}; accepted: {accepted}"
        case "string_pattern_mismatch":
            pattern = problem.get("ctx", {}).get("pattern")
            return f"{where}: given {_shown(problem['input'])}, accepted: text like {pattern}{_help(contract, loc)}"
        case _:
            accepted = message.removeprefix("Input should be ")
            return f"{where}: given {_shown(problem['input'])}, accepted: {accepted}{_help(contract, loc)}"


def _model_at(contract: type[BaseModel], loc: Sequence[str]) -> type[BaseModel]:
    """The contract that the keys at `loc` belong to."""
    for name in loc:
        field = contract.model_fields.get(name)
        inner = _contract_in(field.annotation) if field else None
        if inner is None:
            break
        contract = inner
    return contract


def _contract_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list):
        return next((found for part in typing.get_args(annotation) if (found := _contract_in(part))), None)
    return None


def _help(contract: type[BaseModel], loc: Sequence[str]) -> str:
    field = _model_at(contract, loc[:-1]).model_fields.get(loc[-1]) if loc else None
    return f" ({field.description})" if field and field.description else ""


def _did_you_mean(given: str, known: Sequence[str]) -> str:
    longer = [name for name in known if len(given) > 2 and name.startswith(given)]
    near = longer or difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


def _printable(text: str, limit: int) -> str:
    """One line of at most `limit` characters; what a terminal would act on becomes `?`."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _shown(value: object) -> str:
    if isinstance(value, str):
        # Presigned URLs and passwords in URLs must not reach a log.
        return f"'{_printable(public_url(value) if '://' in value else value, 60)}'"
    return _printable(repr(value), 60)
