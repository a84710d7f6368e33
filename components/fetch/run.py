"""Brings a job's model and data to one folder, checked and hashed, or leaves nothing behind."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from components.core.contracts.job import Job, Task
from components.core.errors import UserError
from components.core.files import (
    room_for,
    sha256_file,
    sha256_files,
    sha256_listing,
    shortened,
    staging,
    write_bytes_atomic,
    write_json_atomic,
)
from components.core.stepping import progress
from components.core.tasks.adapter import ANNOTATIONS, MEDIA
from components.core.tasks.text import TOKENIZER
from components.fetch.card import FETCH_CARD, FetchCard, FetchedFile, FetchedSplit
from components.fetch.coco import Findings, Size, category_names, check_coco, check_image_sizes, normalized
from components.fetch.labelled import check_recordings
from components.fetch.lessons import fetch_lessons
from components.fetch.lookup import Source, Sources
from components.fetch.plan import Plan, PlannedSplit, plan_fetch

_EXIF_ORIENTATION = 0x0112
_SWAPS_SIDES = (5, 6, 7, 8)


def run_fetch(job: Job, out: Path) -> FetchCard:
    """Fills `out` with `model/`, `data/train/`, `data/test/` and `fetch_card.json`; an existing `out` is replaced.

    For the rung `distill` also `student/`, `teachers/N/` and `data/unlabelled/`, as far as the job names them.

    Args:
        job: what to fetch.
        out: folder that appears whole, by a rename at the end, or not at all.

    Raises:
        UserError: something is missing, unsound, too large, cannot be reached or does not fit on the disk.
    """
    sources = Sources()
    progress("checking the model and the data")
    plan = plan_fetch(job, sources)
    with room_for(out, plan.total_bytes), staging(out, replace=True) as folder:
        model = _fetch_model(plan, sources, folder)
        fetch_split = _fetch_split if job.task is Task.DETECTION else _labelled_fetcher(job)
        (train, train_hashes), (test, test_hashes) = (fetch_split(split, sources, folder) for split in plan.splits)
        known = set(train_hashes.values())
        shared = sum(digest in known for digest in test_hashes.values())
        if shared:
            progress(f"{shared} samples of test are in train too: the accuracy will look better than it is")
        card = FetchCard(
            model=model,
            train=train,
            test=test,
            lessons=fetch_lessons(plan.lessons, job, sources, folder, possible_sizes),
            shared_images=shared,
            total_bytes=plan.total_bytes,
        )
        write_bytes_atomic(folder / FETCH_CARD, card.model_dump_json(indent=2).encode())
    return card


def _fetch_model(plan: Plan, sources: Sources, folder: Path) -> list[FetchedFile]:
    targets = {folder / "model" / name: source for name, source in plan.model.items()}
    sources.copy(targets, "fetching the model")
    return [_record(target, source, folder) for target, source in targets.items()]


def _fetch_split(split: PlannedSplit, sources: Sources, folder: Path) -> tuple[FetchedSplit, dict[str, str]]:
    """What was fetched, and the sha256 of every image by name."""
    root = folder / "data" / split.name
    images = {root / MEDIA / name: source for name, source in split.images.items()}
    sources.copy(images, f"fetching the images of {split.name}")
    sizes = {name: possible_sizes(root / MEDIA / name) for name in split.images}
    check_image_sizes(split.document, sizes).raise_errors(split.where)
    document = normalized(split.document, sizes)
    findings = check_coco(document, split.images)
    findings.raise_errors(split.where)
    write_json_atomic(root / ANNOTATIONS, document)
    hashes = sha256_files(root / MEDIA)
    card = _split_card(split, sources, root, hashes, len(document["images"]), category_names(document))
    update = {"boxes": len(document["annotations"]), "warnings": split.warnings | findings.warning_counts()}
    return card.model_copy(update=update), hashes


def _labelled_fetcher(job: Job) -> Callable[[PlannedSplit, Sources, Path], tuple[FetchedSplit, dict[str, str]]]:
    """Fetches a classifier's split: its images or recordings, checked, and the list of its samples."""

    def fetch(split: PlannedSplit, sources: Sources, folder: Path) -> tuple[FetchedSplit, dict[str, str]]:
        root = folder / "data" / split.name
        files = {name: root / MEDIA / name for name in split.images}
        if files:
            what = "recordings" if job.task is Task.AUDIO else "images"
            sources.copy(
                {files[name]: source for name, source in split.images.items()}, f"fetching the {what} of {split.name}"
            )
            check = (
                check_recordings(files, job.preprocess.sample_rate) if what == "recordings" else _check_images(files)
            )
            check.raise_errors(split.where)
        else:
            root.mkdir(parents=True)
        write_json_atomic(root / ANNOTATIONS, split.document)
        if job.task is Task.TEXT:
            _check_tokenizer(job, folder)
            texts = ((one["name"], one["text"].encode("utf-8", "surrogatepass")) for one in split.document["samples"])
            hashes = {name: hashlib.sha256(text).hexdigest() for name, text in texts}
        else:
            hashes = sha256_files(root / MEDIA)
        labels = dict(enumerate(split.document["labels"]))
        return _split_card(split, sources, root, hashes, len(split.document["samples"]), labels), hashes

    return fetch


def _check_images(files: dict[str, Path]) -> Findings:
    findings = Findings()
    for name, path in files.items():
        if not possible_sizes(path):
            findings.errors["files that are no readable image"].append(shortened(name))
    return findings


def _check_tokenizer(job: Job, folder: Path) -> None:
    """Refuses a file that is no tokenizer, as far as JSON can tell: what tokenizes is in the image of later steps."""
    try:
        model = json.loads((folder / "model" / TOKENIZER).read_bytes())["model"]
        if not isinstance(model, dict) or "vocab" not in model:
            raise ValueError("it has no vocabulary")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"preprocess.tokenizer: {job.preprocess.tokenizer} is no tokenizer.json of Hugging Face tokenizers "
            f"({' '.join(str(error).split())[:100]}); save one with tokenizer.save"
        ) from error


def _split_card(
    split: PlannedSplit, sources: Sources, root: Path, hashes: dict[str, str], samples: int, labels: dict[int, str]
) -> FetchedSplit:
    given = split.annotations
    return FetchedSplit(
        annotations=FetchedFile(
            file=f"data/{split.name}/{ANNOTATIONS}",
            source=given.shown,
            sha256=sha256_file(sources.read(given, f"downloading the {split.name} annotations")),
            size_bytes=given.size,
        )
        if given
        else None,
        annotations_sha256=sha256_file(root / ANNOTATIONS),
        images_sha256=sha256_listing(hashes),
        images_source=split.media,
        images=len(split.images),
        images_bytes=split.images_bytes,
        samples=samples,
        categories=labels,
    )


def possible_sizes(path: Path) -> tuple[Size, ...]:
    """Width and height that an image may be stated with: as stored and, if EXIF turns it, as shown; () for no image."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            stored = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION) in _SWAPS_SIDES
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ()
    return (stored, stored[::-1]) if turned else (stored,)


def _record(target: Path, source: Source, folder: Path) -> FetchedFile:
    return FetchedFile(
        file=target.relative_to(folder).as_posix(),
        source=source.shown,
        sha256=sha256_file(target),
        size_bytes=source.size,
    )
