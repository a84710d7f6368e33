"""Checks a COCO detection file and counts what is wrong with it.

What would make a measured accuracy meaningless is an error. What can be put right without a guess is a warning, which
is counted in the fetch card.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from components.core.errors import UserError
from components.core.files import shortened, unsafe_path

EDGE = 1.0
"""Pixels by which a box may leave its image: converters that round, or count pixels from 1, do that."""
EXAMPLES = 3
"""How many examples a message gives of each problem."""

Size = tuple[int, int]
"""Width and height in pixels."""


class Findings:
    """Problems by kind, each with one example text per occurrence."""

    def __init__(self) -> None:
        self.errors: dict[str, list[str]] = defaultdict(list)
        self.warnings: dict[str, list[str]] = defaultdict(list)

    def raise_errors(self, where: str) -> None:
        """Says everything that is wrong in one line.

        Raises:
            UserError: there is an error.
        """
        if self.errors:
            parts = [f"{kind}: {len(found)} ({_examples(found)})" for kind, found in self.errors.items()]
            raise UserError(f"{where}: {'; '.join(parts)}; correct the data and run again")

    def warning_counts(self) -> dict[str, int]:
        """How often each warning occurred."""
        return {kind: len(found) for kind, found in self.warnings.items()}


def read_coco(path: Path, where: str) -> dict[str, Any]:
    """Reads a COCO file.

    Raises:
        UserError: no JSON, without lists named images, annotations and categories, or one of them is empty.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = shortened(" ".join(str(error).split()))
        raise UserError(f"{where} is no JSON ({reason}); give a COCO detection file") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in keys):
        raise UserError(f"{where} is no COCO detection file; it needs lists named {', '.join(keys)}")
    empty = [key for key in keys if not document[key]]
    if empty:
        raise UserError(f"{where} has 0 {' and 0 '.join(empty)}; at least one of each is needed")
    return {key: document[key] for key in keys}


def file_names(document: Mapping[str, Any]) -> list[str]:
    """The `file_name`s that may be looked for, each once."""
    names = (image.get("file_name") for image in document["images"] if isinstance(image, dict))
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and not unsafe_path(name)))


def category_names(document: Mapping[str, Any]) -> dict[int, str]:
    """Category id -> name of a document without errors."""
    return {record["id"]: record["name"] for record in document["categories"]}


def check_coco(document: Mapping[str, Any], present: Iterable[str]) -> Findings:
    """Checks everything that needs no look into an image file.

    Args:
        document: of `read_coco`.
        present: `file_name`s that exist.

    Returns:
        Errors: records of the wrong form, ids or file names given twice, missing images, file names that leave the
        folder, annotations of unknown images or categories, boxes that are not finite or outside their image, no box
        with an area at all. Warnings: boxes without an area, boxes that leave their image by a pixel at most.
    """
    findings = Findings()
    categories = _check_categories(document["categories"], findings)
    images = _check_images(document["images"], set(present), findings)
    _check_annotations(document["annotations"], images, categories, findings)
    return findings


def check_image_sizes(document: Mapping[str, Any], sizes: Mapping[str, tuple[Size, ...]]) -> Findings:
    """Compares the sizes in the document with those of the files.

    Args:
        document: one that `check_coco` found no error in.
        sizes: by `file_name`, the sizes that the image may be stated with; none for a file that is no image.
    """
    findings = Findings()
    for image in document["images"]:
        name, stated = image["file_name"], (image.get("width"), image.get("height"))
        possible = sizes[name]
        if not possible:
            findings.errors["files that are no readable image"].append(shortened(name))
        elif not any(all(said in (None, real) for said, real in zip(stated, size, strict=True)) for size in possible):
            width, height = possible[0]
            findings.errors["images of another size than stated"].append(
                f"{shortened(name)} is {width}x{height}, stated {stated[0]}x{stated[1]}"
            )
    return findings


def normalized(document: Mapping[str, Any], sizes: Mapping[str, tuple[Size, ...]]) -> dict[str, Any]:
    """The document with its optional fields filled in, without the boxes that have no area, annotations numbered anew.

    Args:
        document: one without errors.
        sizes: see `check_image_sizes`.
    """
    images = []
    for image in document["images"]:
        width, height = sizes[image["file_name"]][0]
        images.append({"width": width, "height": height, **{k: v for k, v in image.items() if v is not None}})
    annotations: list[dict[str, Any]] = []
    for annotation in document["annotations"]:
        _, _, width, height = annotation["bbox"]
        if width > 0 and height > 0:
            area = annotation.get("area")
            known = {
                "id": len(annotations) + 1,
                "area": area if _finite(area) is not None else width * height,
                "iscrowd": int(annotation.get("iscrowd") in (1, True)),
            }
            annotations.append(annotation | known)
    return {"images": images, "annotations": annotations, "categories": document["categories"]}


def _check_categories(records: list[Any], findings: Findings) -> set[int]:
    ids = []
    for position, record in enumerate(records):
        if isinstance(record, dict) and _is_id(record.get("id")) and isinstance(record.get("name"), str):
            ids.append(record["id"])
        else:
            findings.errors["categories without an integer id and a name"].append(f"number {position + 1}")
    _find_twice("category ids given twice", ids, findings)
    return set(ids)


def _check_images(records: list[Any], present: set[str], findings: Findings) -> dict[int, Mapping[str, Any]]:
    images: dict[int, Mapping[str, Any]] = {}
    ids, names = [], []
    for position, record in enumerate(records):
        if not isinstance(record, dict) or not _is_id(record.get("id")) or not isinstance(record.get("file_name"), str):
            findings.errors["images without an integer id and a file_name"].append(f"number {position + 1}")
            continue
        name = record["file_name"]
        ids.append(record["id"])
        names.append(name)
        images[record["id"]] = record
        reason = unsafe_path(name)
        if reason:
            findings.errors["file names that cannot be used"].append(f"{shortened(name)} {reason}")
        elif name not in present:
            findings.errors["missing images"].append(shortened(name))
        if not all(record.get(side) is None or _is_side(record[side]) for side in ("width", "height")):
            findings.errors["images whose width or height is no positive integer"].append(shortened(name))
    _find_twice("image ids given twice", ids, findings)
    _find_twice("file names given twice", names, findings)
    return images


def _check_annotations(
    records: list[Any], images: Mapping[int, Mapping[str, Any]], categories: set[int], findings: Findings
) -> None:
    ids = []
    with_area = 0
    for position, record in enumerate(records):
        if not isinstance(record, dict):
            findings.errors["annotations that are no objects"].append(f"number {position + 1}")
            continue
        who = f"number {position + 1}"
        if record.get("id") is not None:
            who = f"annotation {shortened(str(record['id']), 20)[1:-1]}"
            ids.append(record["id"])
        image = _look_up(images, record.get("image_id"))
        if image is None:
            findings.errors["annotations of unknown images"].append(f"{who}: image {_shown(record, 'image_id')}")
        if _look_up(dict.fromkeys(categories, True), record.get("category_id")) is None:
            findings.errors["unknown category ids"].append(f"{who}: category {_shown(record, 'category_id')}")
        with_area += _check_box(record.get("bbox"), image or {}, who, findings)
    _find_twice("annotation ids given twice", ids, findings)
    if not with_area and not findings.errors:
        findings.errors["boxes without an area, so that none is left"].append(f"all {len(records)}")


def _check_box(value: object, image: Mapping[str, Any], who: str, findings: Findings) -> bool:
    """Whether the box has an area."""
    box = _box(value)
    if box is None:
        findings.errors["boxes that are not four finite numbers"].append(who)
        return False
    left, top, width, height = box
    if width <= 0 or height <= 0:
        findings.warnings["boxes without an area, left out"].append(who)
        return False
    over = max(-left, -top)
    for end, side in ((left + width, image.get("width")), (top + height, image.get("height"))):
        if _is_side(side):
            over = max(over, end - side)
    if over > EDGE:
        findings.errors["boxes outside their image"].append(f"{who} by {over:.4g} px")
    elif over > 0:
        findings.warnings["boxes that leave their image by a pixel at most"].append(who)
    return True


def _box(value: object) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    left, top, width, height = (_finite(number) for number in value)
    if left is None or top is None or width is None or height is None:
        return None
    return left, top, width, height


def _finite(value: object) -> float | None:
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _look_up(known: Mapping[int, Any], key: object) -> Any:
    return known.get(key) if _is_id(key) else None


def _shown(record: Mapping[str, Any], key: str) -> str:
    return shortened(str(record[key]), 40)[1:-1] if key in record else "not given"


def _find_twice(kind: str, values: list[Any], findings: Findings) -> None:
    # As text: an id may be of a type that cannot be hashed.
    twice = [value for value, count in Counter(map(str, values)).items() if count > 1]
    if twice:
        findings.errors[kind] = [shortened(value, 60)[1:-1] for value in twice]


def _is_id(value: object) -> TypeGuard[int]:
    return type(value) is int


def _is_side(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _examples(found: list[str]) -> str:
    return ", ".join(found[:EXAMPLES]) + (", ..." if len(found) > EXAMPLES else "")
