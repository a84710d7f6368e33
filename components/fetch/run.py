"""Brings a job's model and data to one folder, checked and hashed, or leaves nothing behind."""

from pathlib import Path

from components.core.contracts.job import Job
from components.core.files import (
    room_for,
    sha256_file,
    sha256_files,
    sha256_listing,
    staging,
    write_bytes_atomic,
    write_json_atomic,
)
from components.core.stepping import progress
from components.fetch.card import FETCH_CARD, FetchCard, FetchedFile, FetchedSplit
from components.fetch.coco import Size, category_names, check_coco, check_image_sizes, normalized
from components.fetch.lookup import Source, Sources
from components.fetch.plan import Plan, PlannedSplit, plan_fetch

_EXIF_ORIENTATION = 0x0112
_SWAPS_SIDES = (5, 6, 7, 8)


def run_fetch(job: Job, out: Path) -> FetchCard:
    """Fills `out` with `model/`, `data/train/`, `data/test/` and `fetch_card.json`; an existing `out` is replaced.

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
        (train, train_images), (test, test_images) = (_fetch_split(split, sources, folder) for split in plan.splits)
        shared = len(set(train_images.values()) & set(test_images.values()))
        if shared:
            progress(f"{shared} images of test are in train too: the accuracy will look better than it is")
        card = FetchCard(model=model, train=train, test=test, shared_images=shared, total_bytes=plan.total_bytes)
        write_bytes_atomic(folder / FETCH_CARD, card.model_dump_json(indent=2).encode())
    return card


def _fetch_model(plan: Plan, sources: Sources, folder: Path) -> list[FetchedFile]:
    targets = {folder / "model" / name: source for name, source in plan.model.items()}
    sources.copy(targets, "fetching the model")
    return [_record(target, source, folder) for target, source in targets.items()]


def _fetch_split(split: PlannedSplit, sources: Sources, folder: Path) -> tuple[FetchedSplit, dict[str, str]]:
    """What was fetched, and the sha256 of every image by name."""
    root = folder / "data" / split.name
    images = {root / "images" / name: source for name, source in split.images.items()}
    sources.copy(images, f"fetching the images of {split.name}")
    sizes = {name: possible_sizes(root / "images" / name) for name in split.images}
    check_image_sizes(split.document, sizes).raise_errors(split.where)
    document = normalized(split.document, sizes)
    findings = check_coco(document, split.images)
    findings.raise_errors(split.where)
    write_json_atomic(root / "annotations.json", document)
    hashes = sha256_files(root / "images")
    return FetchedSplit(
        annotations=FetchedFile(
            file=f"data/{split.name}/annotations.json",
            source=split.annotations.shown,
            sha256=sha256_file(sources.read(split.annotations, f"downloading the {split.name} annotations")),
            size_bytes=split.annotations.size,
        ),
        annotations_sha256=sha256_file(root / "annotations.json"),
        images_sha256=sha256_listing(hashes),
        images_source=split.source.images,
        images=len(split.images),
        images_bytes=split.images_bytes,
        boxes=len(document["annotations"]),
        categories=category_names(document),
        warnings=split.warnings | findings.warning_counts(),
    ), hashes


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
