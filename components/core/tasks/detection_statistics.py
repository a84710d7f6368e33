"""Statistics of a COCO split that drift shows in: labels, and size, shape and place of the boxes."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from components.core.contracts.dataset import SplitStatistics

_PLACES = 6
"""Bins across an image, for the centres of boxes."""
_CROWD = 64
"""Boxes an image from which on they are no longer told apart."""


def statistics_of(
    document: Mapping[str, Any], annotations_sha256: str = "", images_sha256: str = ""
) -> SplitStatistics:
    """Counts and histograms of a COCO document as `fetch` writes it: every image with its size, every box with an area.

    The bins are fixed and relative to the image, so that splits of any image size compare: the side of a box in
    halvings of the image's side, the aspect ratio in steps of a factor of 1.4, centres in sixths of the image, boxes an
    image in doublings.
    """
    sizes = {record["id"]: (record["width"], record["height"]) for record in document["images"]}
    names = {record["id"]: str(record["name"]) for record in document["categories"]}
    boxes = [(sizes[record["image_id"]], record["bbox"]) for record in document["annotations"]]
    counts = Counter(record["image_id"] for record in document["annotations"])
    return SplitStatistics(
        images=len(sizes),
        boxes=len(boxes),
        empty_images=sum(1 for image in sizes if not counts[image]),
        categories=names,
        histograms={
            "labels": _histogram(names[record["category_id"]] for record in document["annotations"]),
            "size of the boxes": _histogram(_size(size, box) for size, box in boxes),
            "aspect ratio of the boxes": _histogram(_aspect(box) for _, box in boxes),
            "place of the boxes across": _histogram(_place(box[0] + box[2] / 2, size[0]) for size, box in boxes),
            "place of the boxes down": _histogram(_place(box[1] + box[3] / 2, size[1]) for size, box in boxes),
            "boxes an image": _histogram(_doublings(counts[image]) for image in sizes),
        },
        annotations_sha256=annotations_sha256,
        images_sha256=images_sha256,
    )


def _histogram(bins: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(bins).items()))


def _size(image: tuple[int, int], box: list[float]) -> str:
    share = math.sqrt(box[2] * box[3] / (image[0] * image[1]))
    return f"1/2^{max(0, math.floor(-math.log2(max(share, 1e-6)) * 2)) / 2:g}"


def _aspect(box: list[float]) -> str:
    steps = round(2 * math.log2(box[2] / box[3]))
    return f"2^{max(-6, min(6, steps)) / 2:g}"


def _place(centre: float, side: int) -> str:
    return str(min(max(int(_PLACES * centre / side), 0), _PLACES - 1))


def _doublings(count: int) -> str:
    return "0" if count == 0 else f"{2 ** int(math.log2(min(count, _CROWD)))}+"
