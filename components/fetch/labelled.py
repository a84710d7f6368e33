"""Finds and checks the data of a classifier: class folders, a CSV or JSONL file, recordings."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.contracts.job import Job, Split, Task
from components.core.errors import UserError
from components.core.files import shortened, unsafe_path
from components.fetch.coco import Findings
from components.fetch.lookup import Source, Sources

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_FORMATS = {
    Task.CLASSIFICATION: (("file", "label"), "a CSV file with columns file,label"),
    Task.TEXT: (("text", "label"), "a CSV or JSONL file with text and label"),
    Task.AUDIO: (("file", "label"), "a CSV file with columns file,label"),
}
MAX_TEXT = 1_000_000
"""Characters of one text."""

Row = dict[str, str]


@dataclass(frozen=True)
class Labelled:
    """What a split says, before the classes have their numbers."""

    annotations: Source | None
    rows: tuple[Row, ...]
    """``name`` and ``label``, and ``text`` of a text."""
    files: dict[str, Source]
    """By the samples' names; empty for texts."""
    where: str
    """Field and file, for messages."""


def find_labelled(name: str, split: Split, task: Task, sources: Sources) -> Labelled:
    """Finds a split's samples.

    Args:
        name: `train` or `test`.
        split: of the job.
        task: one of the classifiers'.
        sources: looks files up.

    Raises:
        UserError: the file or the folder is missing or no such thing, or lists samples that are not there.
    """
    if not split.annotations:
        return _class_folders(name, str(split.images), sources)
    columns, accepted = _FORMATS[task]
    field = f"data.{name}.annotations"
    where = f"{field}: {split.annotations}"
    found = sources.file(field, split.annotations, f"the path or s3:// URI of {accepted}")
    rows = _read_rows(sources.read(found, f"downloading the {name} annotations"), where, columns, accepted)
    if task is Task.TEXT:
        _check_texts(rows).raise_errors(where)
        named = tuple({"name": f"{number:07d}", **row} for number, row in enumerate(rows, start=1))
        return Labelled(found, named, {}, where)
    kind = "audio" if task is Task.AUDIO else "images"
    files = sources.folder(f"data.{name}.{kind}", str(getattr(split, kind)), dict.fromkeys(row["file"] for row in rows))
    _check_files(rows, files).raise_errors(where)
    named = tuple({"name": row["file"], "label": row["label"]} for row in rows)
    return Labelled(found, named, files, where)


def class_names(job: Job, train: Labelled, test: Labelled) -> list[str]:
    """The classes in the order of the model's outputs: as the job says, else those of `train`, sorted.

    Numbers are sorted as numbers, so that class 10 is not the second one.

    Raises:
        UserError: a split has a class that is not among them, or there are fewer than two.
    """
    names = job.data.labels or _sorted({row["label"] for row in train.rows})
    if len(names) < 2:
        raise UserError(f"{train.where}: has 1 class ({names[0]!r}); a classifier needs at least 2")
    for split in (train, test):
        unknown = _sorted({row["label"] for row in split.rows} - set(names))
        if unknown:
            known = "data.labels" if job.data.labels else "data.train"
            raise UserError(
                f"{split.where}: {len(unknown)} classes are not among those of {known} "
                f"({', '.join(shortened(one, 40) for one in unknown[:3])}); known: {shortened(', '.join(names), 200)}"
            )
    return names


def document_of(split: Labelled, labels: Sequence[str]) -> dict[str, Any]:
    """What `components.core.tasks.labelled.read_labelled` reads."""
    numbers = {name: number for number, name in enumerate(labels)}
    return {"labels": list(labels), "samples": [{**row, "label": numbers[row["label"]]} for row in split.rows]}


def check_recordings(files: Mapping[str, Path], sample_rate: int) -> Findings:
    """Reads the header of every recording."""
    import soundfile

    findings = Findings()
    for name, path in files.items():
        try:
            info = soundfile.info(path)
        except (soundfile.LibsndfileError, OSError, RuntimeError):
            findings.errors["files that are no readable WAV or FLAC"].append(shortened(name))
            continue
        if info.samplerate != sample_rate:
            findings.errors[f"recordings that do not have the {sample_rate} Hz of preprocess.sample_rate"].append(
                f"{shortened(name)} has {info.samplerate}"
            )
        if info.frames == 0:
            findings.errors["recordings without a sample"].append(shortened(name))
    return findings


def _class_folders(name: str, uri: str, sources: Sources) -> Labelled:
    field = f"data.{name}.images"
    where = f"{field}: {uri}"
    listed = sources.below(field, uri, IMAGE_SUFFIXES)
    files = {path: source for path, source in sorted(listed.items()) if "/" in path}
    if not files:
        advice = "give a folder with one folder of images for each class, or annotations with file,label"
        raise UserError(f"{where}: has no images in class folders ({len(listed)} beside them); {advice}")
    rows = tuple({"name": path, "label": path.partition("/")[0]} for path in files)
    return Labelled(None, rows, files, where)


def _read_rows(path: Path, where: str, columns: Sequence[str], accepted: str) -> list[Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text (byte {error.start}); give {accepted}") from error
    jsonl = "text" in columns and text.lstrip()[:1] == "{"
    rows = list(_json_lines(text, where, columns) if jsonl else _csv_lines(text, where, columns, accepted))
    if not rows:
        raise UserError(f"{where} lists no samples; give {accepted} and at least one row")
    return rows


def _csv_lines(text: str, where: str, columns: Sequence[str], accepted: str) -> Iterable[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = reader.fieldnames or []
        if missing := [column for column in columns if column not in header]:
            given = shortened(", ".join(header), 100) if header else "nothing"
            raise UserError(f"{where} has the columns {given}; missing: {', '.join(missing)}; give {accepted}")
        for number, row in enumerate(reader, start=2):
            if any(not row[column] for column in columns):
                raise UserError(f"{where}: row {number} lacks {' or '.join(columns)}; correct the file and run again")
            yield {column: str(row[column]) for column in columns}
    except csv.Error as error:
        raise UserError(f"{where} is no CSV file (line {reader.line_num}: {error}); give {accepted}") from error


def _json_lines(text: str, where: str, columns: Sequence[str]) -> Iterable[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: line {number} is no JSON; give one object a line") from error
        if not isinstance(row, dict) or any(column not in row for column in columns):
            raise UserError(f"{where}: line {number} is no object with {' and '.join(columns)}; correct it")
        if not isinstance(row["text"], str) or not isinstance(row["label"], str | int) or row["label"] == "":
            raise UserError(f"{where}: line {number}: text is no text, or label neither text nor a number; correct it")
        yield {column: str(row[column]) for column in columns}


def _check_texts(rows: Sequence[Row]) -> Findings:
    findings = Findings()
    for number, row in enumerate(rows, start=1):
        if len(row["text"]) > MAX_TEXT:
            findings.errors[f"texts of more than {MAX_TEXT} characters"].append(f"number {number}")
    return findings


def _check_files(rows: Sequence[Row], files: Mapping[str, Source]) -> Findings:
    findings = Findings()
    seen: set[str] = set()
    for row in rows:
        name = row["file"]
        if reason := unsafe_path(name):
            findings.errors["file names that cannot be used"].append(f"{shortened(name)} {reason}")
        elif name not in files:
            findings.errors["missing files"].append(shortened(name))
        if name in seen:
            findings.errors["files given twice"].append(shortened(name))
        seen.add(name)
    return findings


def _sorted(names: Iterable[str]) -> list[str]:
    names = list(names)
    if all(name.lstrip("-").isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)
