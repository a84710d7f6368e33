"""What a student learns from: its own weights, its teachers, samples without labels; found, checked and brought."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.contracts.job import Job, Task
from components.core.errors import UserError
from components.core.files import sha256_file, sha256_files, sha256_listing, write_json_atomic
from components.core.storage import check_size
from components.core.tasks.adapter import ANNOTATIONS, MEDIA
from components.fetch.card import FetchedFile, FetchedLessons, FetchedUnlabelled
from components.fetch.coco import Size
from components.fetch.labelled import IMAGE_SUFFIXES, MAX_TEXT, check_recordings
from components.fetch.lookup import Source, Sources
from components.fetch.model_files import plan_file, plan_model

SPLIT = "unlabelled"
_AUDIO_SUFFIXES = (".wav", ".flac")
_TEXTS = "a CSV file with a column text, or a JSONL file with text"


@dataclass(frozen=True)
class PlannedUnlabelled:
    """Samples without labels that all exist."""

    media: dict[str, Source]
    """Images or recordings by relative path; empty for texts."""
    texts: tuple[str, ...]
    given: Source | None
    """The file of the texts."""
    where: str
    """Field and what it says, for messages."""


@dataclass(frozen=True)
class PlannedLessons:
    """Everything for `distill` beside the model and the labelled data."""

    files: dict[Path, Source] = field(default_factory=dict)
    """Path in the bundle -> source: `student/...` and `teachers/N/...`."""
    unlabelled: PlannedUnlabelled | None = None

    @property
    def total_bytes(self) -> int:
        """Size of all of it."""
        unlabelled = self.unlabelled
        brought = sum(source.size for source in self.files.values())
        if unlabelled is None:
            return brought
        return (
            brought
            + sum(source.size for source in unlabelled.media.values())
            + (unlabelled.given.size if unlabelled.given else 0)
        )


def plan_lessons(job: Job, sources: Sources) -> PlannedLessons:
    """Finds what `distill` needs.

    Raises:
        UserError: a file is missing, of the wrong kind or damaged; one line that names the field.
    """
    files: dict[Path, Source] = {}
    if job.distill is not None:
        if job.distill.student.weights:
            found = plan_file("distill.student.weights", job.distill.student.weights, sources)
            files |= {Path("student") / name: source for name, source in found.items()}
        for number, teacher in enumerate(job.distill.teachers):
            found = plan_model(teacher, sources, job.data, f"distill.teachers.{number}")
            files |= {Path("teachers") / str(number) / name: source for name, source in found.items()}
    return PlannedLessons(files, _plan_unlabelled(job, sources))


def fetch_lessons(
    plan: PlannedLessons, job: Job, sources: Sources, folder: Path, possible_sizes: Callable[[Path], tuple[Size, ...]]
) -> FetchedLessons | None:
    """Brings it into a bundle whose training split is there already; None if there is nothing to bring.

    Args:
        plan: of `plan_lessons`.
        job: for the task.
        sources: looks files up.
        folder: the bundle.
        possible_sizes: width and height of an image, or nothing.

    Raises:
        UserError: an image or a recording is damaged.
    """
    if not plan.files and plan.unlabelled is None:
        return None
    targets = {folder / path: source for path, source in plan.files.items()}
    sources.copy(targets, "fetching teachers and student")
    files = [
        FetchedFile(
            file=target.relative_to(folder).as_posix(),
            source=source.shown,
            sha256=sha256_file(target),
            size_bytes=source.size,
        )
        for target, source in targets.items()
    ]
    unlabelled = _fetch_unlabelled(plan.unlabelled, job, sources, folder, possible_sizes) if plan.unlabelled else None
    return FetchedLessons(files=files, unlabelled=unlabelled)


def digest_lines(plan: PlannedLessons) -> Iterator[list[str]]:
    """What changes when a file of `distill` does, for the cache's key."""
    for path, source in plan.files.items():
        yield [path.as_posix(), source.identity(by_content=True)]
    if plan.unlabelled:
        if plan.unlabelled.given:
            yield [SPLIT, plan.unlabelled.given.identity(by_content=True)]
        for name, source in sorted(plan.unlabelled.media.items()):
            yield [SPLIT, name, source.identity(by_content=False)]


def _plan_unlabelled(job: Job, sources: Sources) -> PlannedUnlabelled | None:
    given = job.data.unlabelled
    if given is None:
        return None
    if given.texts:
        name = "data.unlabelled.texts"
        where = f"{name}: {given.texts}"
        source = sources.file(name, given.texts, f"the path or s3:// URI of {_TEXTS}")
        check_size(where, source.size, job.data.max_download)
        texts = tuple(_texts(sources.read(source, "downloading the unlabelled texts"), where))
        return PlannedUnlabelled({}, texts, source, where)
    kind, suffixes = ("audio", _AUDIO_SUFFIXES) if given.audio else ("images", IMAGE_SUFFIXES)
    name, uri = f"data.unlabelled.{kind}", str(given.audio or given.images)
    media = dict(sorted(sources.below(name, uri, suffixes).items()))
    if not media:
        raise UserError(f"{name}: {uri} has no files with {', '.join(suffixes)}; give the folder of the samples")
    return PlannedUnlabelled(media, (), None, f"{name}: {uri}")


def _texts(path: Path, where: str) -> Iterator[str]:
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text (byte {error.start}); give {_TEXTS}") from error
    try:
        rows: list[Any]
        if content.lstrip()[:1] == "{":
            rows = [json.loads(line) for line in content.split("\n") if line.strip()]
        else:
            rows = list(csv.DictReader(io.StringIO(content, newline=""), strict=True))
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{where} cannot be read ({' '.join(str(error).split())[:100]}); give {_TEXTS}") from error
    texts = [row.get("text") if isinstance(row, Mapping) else None for row in rows]
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text or len(text) > MAX_TEXT:
            raise UserError(f"{where}: row {number} has no text of 1 to {MAX_TEXT} characters; give {_TEXTS}")
        yield text
    if not texts:
        raise UserError(f"{where} lists no texts; give {_TEXTS}")


def _fetch_unlabelled(
    plan: PlannedUnlabelled,
    job: Job,
    sources: Sources,
    folder: Path,
    possible_sizes: Callable[[Path], tuple[Size, ...]],
) -> FetchedUnlabelled:
    root = folder / "data" / SPLIT
    files = {name: root / MEDIA / name for name in plan.media}
    sources.copy({files[name]: source for name, source in plan.media.items()}, "fetching samples without labels")
    root.mkdir(parents=True, exist_ok=True)
    train = json.loads((folder / "data" / "train" / ANNOTATIONS).read_text())
    if job.task is Task.AUDIO:
        check_recordings(files, job.preprocess.sample_rate).raise_errors(plan.where)
    sizes = {} if job.task is Task.AUDIO else {name: possible_sizes(path) for name, path in files.items()}
    if damaged := [name for name, found in sizes.items() if not found]:
        raise UserError(f"{plan.where}: {len(damaged)} files are no readable image, for instance {damaged[0]}")
    document: dict[str, Any]
    if job.task is Task.DETECTION:
        records = [
            # As stored: nobody drew boxes on these, so there is no turn to follow.
            {"id": number, "file_name": name, "width": found[0][0], "height": found[0][1]}
            for number, (name, found) in enumerate(sizes.items(), start=1)
        ]
        document = {"images": records, "annotations": [], "categories": train["categories"]}
    else:
        named = [{"name": name, "label": 0} for name in files]
        texts = [{"name": f"{n:07d}", "label": 0, "text": text} for n, text in enumerate(plan.texts, start=1)]
        # The format has a label for each sample; whoever learns from this split reads none of them.
        document = {"labels": train["labels"], "samples": [*named, *texts]}
    write_json_atomic(root / ANNOTATIONS, document)
    hashes = sha256_files(root / MEDIA) if files else {}
    return FetchedUnlabelled(
        samples=len(plan.media) or len(plan.texts),
        source=plan.where,
        sha256=sha256_listing({ANNOTATIONS: sha256_file(root / ANNOTATIONS), **hashes}),
    )
