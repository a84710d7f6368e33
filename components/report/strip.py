"""Test images with what the baseline and the winner found in them, side by side."""

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from components.core.contracts.leaderboard import Candidate
from components.core.errors import UserError
from components.core.files import unsafe_path
from components.core.formats import plain
from components.core.stepping import one_line
from components.core.storage import materialize
from components.core.tasks.detection import Detections, DetectionSplit, SplitImage, read_detections, read_split

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

IMAGES = 4
MIN_SCORE = 0.5
"""Boxes below it are not drawn and not counted."""
MIN_IOU = 0.5
"""Overlap from which a box has found an object."""
BUDGET = 2_000_000
"""Bytes that all images together may take in the report."""

TRUTH = "#56b4e9"
CLASSES = ("#f0e442", "#e69f00", "#ff8fc7", "#7ce0b8", "#ffffff", "#c9a0ff")
"""One colour a class, in the order of the category ids, then from the start again."""
_HALO = "#101418"
_QUALITIES = ((560, 86), (560, 76), (480, 72), (400, 66), (300, 60))
"""Longest side in pixels and JPEG quality, the best first; the first that keeps the budget is taken."""
_MAX_ENLARGEMENT = 2.0


class Score(NamedTuple):
    """How the drawn boxes of one image compare with the truth."""

    boxes: int
    found: int
    objects: int


@dataclass(frozen=True)
class Picture:
    """An image in the page."""

    uri: str
    """`data:` URI."""
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Panel:
    """What one model makes of a sample."""

    candidate: str
    words: str
    picture: Picture | None = None
    """The image with this model's boxes."""


@dataclass(frozen=True)
class Pair:
    """One test sample, seen by the baseline and by the other."""

    name: str
    panels: tuple[Panel, ...]
    picture: Picture | None = None
    """Of the sample itself, where the models add nothing to it."""
    text: str = ""
    """The sample, where it is a text."""


@dataclass(frozen=True)
class Strip:
    """What the report shows of the test samples."""

    pairs: tuple[Pair, ...]
    classes: tuple[tuple[str, str], ...]
    """Class name and colour of its boxes; empty without boxes."""
    note: str = ""
    """Why samples are missing, if any are."""
    title: str = "Test images"
    hint: str = (
        f"Spread evenly over the test split, not chosen by result. Only boxes with a score of at least {MIN_SCORE} are "
        "drawn and counted; an object is found when a box of its class overlaps it with an IoU of at least "
        f"{MIN_IOU}."
    )


def strip(rows: list[Candidate], bundle: Path) -> Strip:
    """Draws up to `IMAGES` test images for every row that has detections.

    Images are spread evenly over those of the test split that hold an object, not chosen by how well they look.
    What cannot be read is left out and named in `note`; the report never fails for its pictures.
    """
    try:
        split = read_split(bundle / "data/test/annotations.json", bundle / "data/test/images")
    except UserError as error:
        return Strip((), (), one_line(error))
    found: list[tuple[Candidate, dict[str, Detections]]] = []
    notes = []
    for row in rows:
        uri = row.details.get("detections")
        if not isinstance(uri, str):
            notes.append(f"{row.id} has no detections to show")
            continue
        try:
            found.append((row, read_detections(materialize(uri))))
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"the detections of {row.id} cannot be read: {one_line(error)}")
    if not found:
        return Strip((), (), "; ".join(notes))
    pictures, missing = _load(chosen(split, found))
    pairs = _within_budget(pictures, found, split)
    return Strip(pairs, _legend(split), "; ".join(notes + missing))


def chosen(split: DetectionSplit, found: list[tuple[Candidate, dict[str, Detections]]]) -> list[SplitImage]:
    """Up to `IMAGES` images that every row has detections for, spread evenly, those with objects first."""
    known = [image for image in split.images if all(image.file_name in detections for _, detections in found)]
    full = {annotation["image_id"] for annotation in split.document["annotations"]}
    pool = [image for image in known if image.id in full] or known
    count = min(IMAGES, len(pool))
    return [pool[round(index * (len(pool) - 1) / max(count - 1, 1))] for index in range(count)]


def compare(boxes: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], split: DetectionSplit, image: int) -> Score:
    """Counts the objects that have a box of their class with an IoU of at least `MIN_IOU`; one box finds one object.

    Args:
        boxes: [N, 4] as x1 y1 x2 y2 in image pixels, the best first.
        labels: [N], category ids.
        split: the truth.
        image: id of the image.
    """
    truth, classes = _truth(split, image)
    free = np.ones(len(truth), bool)
    for box, label in zip(boxes, labels, strict=True):
        overlaps = np.where(free & (classes == label), _iou(box, truth), 0.0)
        if overlaps.size and overlaps.max() >= MIN_IOU:
            free[int(overlaps.argmax())] = False
    return Score(len(boxes), int((~free).sum()), len(truth))


def _truth(split: DetectionSplit, image: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    records = [
        record for record in split.document["annotations"] if record["image_id"] == image and not record["iscrowd"]
    ]
    boxes = np.asarray([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.asarray([record["category_id"] for record in records], np.int64)


def _iou(box: npt.NDArray[np.float32], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    corner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(corner, 0, None).prod(1)
    union = np.prod(box[2:] - box[:2]) + (others[:, 2:] - others[:, :2]).prod(1) - shared
    ratio: npt.NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def _load(images: list[SplitImage]) -> tuple[list[tuple[SplitImage, "Image"]], list[str]]:
    from PIL import Image

    loaded, missing = [], []
    for image in images:
        try:
            reason = unsafe_path(image.file_name)
            if reason:
                raise UserError(f"the file name {reason}")
            loaded.append((image, Image.fromarray(image.load())))
        except UserError as error:
            missing.append(f"{image.file_name}: {one_line(error)}")
    return loaded, missing


def _within_budget(
    pictures: list[tuple[SplitImage, "Image"]],
    found: list[tuple[Candidate, dict[str, Detections]]],
    split: DetectionSplit,
) -> tuple[Pair, ...]:
    pairs: tuple[Pair, ...] = ()
    for side, quality in _QUALITIES:
        pairs = tuple(
            Pair(name, tuple(_panel(row, seen[name], image, picture, split, side, quality) for row, seen in found))
            for name, image, picture in ((image.file_name, image, picture) for image, picture in pictures)
        )
        if sum(len(panel.picture.uri) for pair in pairs for panel in pair.panels if panel.picture) <= BUDGET:
            break
    return pairs


def _panel(
    row: Candidate,
    detections: Detections,
    image: SplitImage,
    picture: "Image",
    split: DetectionSplit,
    side: int,
    quality: int,
) -> Panel:
    from PIL import Image, ImageDraw

    factor = min(side / max(picture.size), _MAX_ENLARGEMENT)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    canvas = picture.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)
    kept = detections.scores >= MIN_SCORE
    order = np.argsort(-detections.scores[kept], kind="stable")
    boxes, labels = detections.boxes[kept][order], detections.labels[kept][order]
    for box in _truth(split, image.id)[0] * factor:
        _dashed(draw, box)
    colours = _colours(split)
    for box, label in zip(boxes * factor, labels, strict=True):
        _solid(draw, box, colours.get(int(label), CLASSES[0]))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)
    score = compare(boxes, labels, split, image.id)
    words = f"{score.boxes} boxes, {score.found} of {score.objects} objects found"
    picture_of = Picture(
        f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        *size,
        f"{plain(image.file_name)} with the {score.boxes} boxes of {plain(row.id)} that score {MIN_SCORE} or more; "
        f"{score.found} of {score.objects} objects found",
    )
    return Panel(row.id, words, picture_of)


def _solid(draw: "ImageDraw", box: npt.NDArray[np.float32], colour: str) -> None:
    corners = _corners(box)
    draw.rectangle((corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1), outline=_HALO, width=1)
    draw.rectangle(corners, outline=colour, width=3)


def _dashed(draw: "ImageDraw", box: npt.NDArray[np.float64], dash: int = 8, gap: int = 5) -> None:
    left, top, right, bottom = _corners(box)
    sides = (
        (left, top, right, top),
        (right, top, right, bottom),
        (left, bottom, right, bottom),
        (left, top, left, bottom),
    )
    for x0, y0, x1, y1 in sides:
        length = max(abs(x1 - x0), abs(y1 - y0))
        for start in range(0, max(math.ceil(length), 1), dash + gap):
            end = min(start + dash, length)
            along = (x0 + start, y0, x0 + end, y0) if y0 == y1 else (x0, y0 + start, x0, y0 + end)
            draw.line(along, fill=TRUTH, width=2)


def _corners(box: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> tuple[int, int, int, int]:
    # Boxes come from a model or a file: a huge or reversed one must not stop the drawing.
    left, top, right, bottom = (round(float(value)) for value in np.clip(np.nan_to_num(box), -20_000, 20_000))
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def _colours(split: DetectionSplit) -> dict[int, str]:
    return {number: CLASSES[index % len(CLASSES)] for index, number in enumerate(sorted(split.categories))}


def _legend(split: DetectionSplit) -> tuple[tuple[str, str], ...]:
    colours = _colours(split)
    return tuple((split.categories[number], colours[number]) for number in sorted(split.categories))
