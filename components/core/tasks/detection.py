"""Object detection: reading a COCO split, fitting images to the network, scoring detections."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import METRICS, Metric, Task
from components.core.errors import StepError, UserError

MAX_DETECTIONS = 100
"""Detections an image that count, best first; COCO's own limit."""

Image = npt.NDArray[np.uint8]
"""Decoded image [H, W, 3], RGB."""
Scale = tuple[float, float]
"""Network pixels per image pixel, horizontally and vertically."""

_EXIF_ORIENTATION = 0x0112
_SWAPS_SIDES = {5, 6, 7, 8}
_COORDINATE_DECIMALS, _SCORE_DECIMALS = 3, 6


class Detections(NamedTuple):
    """What a detector found in one image."""

    boxes: npt.NDArray[np.float32]
    """[N, 4] as x1 y1 x2 y2 in pixels."""
    scores: npt.NDArray[np.float32]
    """[N] in 0..1."""
    labels: npt.NDArray[np.int64]
    """[N], the data set's category ids."""


@dataclass(frozen=True)
class SplitImage:
    """One image of a split."""

    id: int
    file_name: str
    path: Path
    size: tuple[int, int] | None
    """Width and height in pixels as the annotations have them."""

    @property
    def name(self) -> str:
        """See `components.core.tasks.adapter.Sample`."""
        return self.file_name

    def load(self) -> Image:
        """Decodes the file; see `load_image`."""
        return load_image(self.path, self.size)


@dataclass(frozen=True)
class DetectionSplit:
    """A COCO split that was read."""

    annotations: Path
    images: tuple[SplitImage, ...]
    categories: dict[int, str]
    document: dict[str, Any]
    """The COCO document, with the optional fields of every annotation filled in."""

    @property
    def samples(self) -> tuple[SplitImage, ...]:
        """See `components.core.tasks.adapter.Dataset`, of which this is one."""
        return self.images

    @property
    def labels(self) -> dict[int, str]:
        """See `Dataset.labels`."""
        return self.categories

    @property
    def can_judge(self) -> bool:
        """See `Dataset.can_judge`: whether there is a box to find."""
        return any(not record["iscrowd"] for record in self.document["annotations"])

    def subset(self, indices: Sequence[int]) -> "DetectionSplit":
        """See `Dataset.subset`: the images with their boxes."""
        images = tuple(self.images[index] for index in indices)
        ids = {image.id for image in images}
        document = self.document | {
            "images": [record for record in self.document["images"] if int(record["id"]) in ids],
            "annotations": [record for record in self.document["annotations"] if int(record["image_id"]) in ids],
        }
        return DetectionSplit(self.annotations, images, self.categories, document)

    def unseen(self, indices: Sequence[int]) -> str:
        """See `Dataset.unseen`."""
        return "" if self.subset(indices).can_judge else "none has a box: the heads were never seen to find anything"


def read_split(annotations: Path, images: Path) -> DetectionSplit:
    """Reads a COCO JSON file; `images` is the folder that its `file_name`s are relative to.

    Raises:
        UserError: the file is missing, is no COCO detection file, or lists no image.
    """
    try:
        document = json.loads(annotations.read_text())
    except OSError as error:
        raise UserError(f"annotations {annotations} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"annotations {annotations} are no JSON ({error}); give a COCO detection file") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in keys):
        raise UserError(f"annotations {annotations} are no COCO detection file: it needs lists named {', '.join(keys)}")
    if not document["images"]:
        raise UserError(f"annotations {annotations} list no images; at least one is needed")
    try:
        listed = tuple(_split_image(record, images) for record in document["images"])
        categories = {int(category["id"]): str(category["name"]) for category in document["categories"]}
        document["annotations"] = [
            _with_defaults(record, number) for number, record in enumerate(document["annotations"], start=1)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"annotations {annotations} lack a COCO field or have one of another type: {error!r}"
        ) from error
    return DetectionSplit(annotations, listed, categories, document)


def _split_image(record: dict[str, Any], folder: Path) -> SplitImage:
    size = (int(record["width"]), int(record["height"])) if "width" in record and "height" in record else None
    return SplitImage(int(record["id"]), str(record["file_name"]), folder / str(record["file_name"]), size)


def _with_defaults(record: dict[str, Any], number: int) -> dict[str, Any]:
    _, _, width, height = record["bbox"]
    # COCOeval takes an id of 0 for "not matched", and exporters that count from 0 are common.
    return {"area": width * height, "iscrowd": 0} | record | {"id": number}


def load_image(path: Path, size: tuple[int, int] | None = None) -> Image:
    """Decodes an image as RGB uint8 [H, W, 3].

    Args:
        path: image file.
        size: width and height that the annotations state. An EXIF turn is applied only where it is needed to get this
            size: annotation tools disagree on EXIF, and the stated size tells which pixels the boxes were drawn on.

    Raises:
        UserError: the file is missing, damaged, no image, or too large to decode safely.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with Pillow.open(path) as opened:
            if size and opened.size != size and opened.size == size[::-1]:
                turned = opened.getexif().get(_EXIF_ORIENTATION) in _SWAPS_SIDES
                return np.asarray((ImageOps.exif_transpose(opened) if turned else opened).convert("RGB"))
            return np.asarray(opened.convert("RGB"))
    except Pillow.DecompressionBombError as error:
        raise UserError(f"image {path} is too large to decode: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"image {path} does not exist; the annotations list it") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"image {path} cannot be decoded: {error}; give a whole JPEG, PNG or other image") from error


def fit(image: Image, height: int, width: int) -> tuple[npt.NDArray[np.float32], Scale]:
    """Letterboxes an image into the network's input: bilinear, at the top left, the rest 0.

    Args:
        image: decoded image [H, W, 3].
        height: of the network's input, in pixels.
        width: of the network's input, in pixels.

    Returns:
        The batch, float32 [1, 3, height, width] in 0..1, and the scale that `unfit` needs.
    """
    resized, scale = _resize(image, height, width)
    batch = np.zeros((1, 3, height, width), np.float32)
    rows, columns = resized.shape[:2]
    # Divided, not multiplied by 1/255: bit for bit what torchvision's ToTensor gives.
    np.divide(resized.transpose(2, 0, 1), np.float32(255), out=batch[0, :, :rows, :columns], dtype=np.float32)
    return batch, scale


def _resize(image: Image, height: int, width: int) -> tuple[Image, Scale]:
    from PIL import Image as Pillow

    rows, columns = image.shape[:2]
    factor = min(height / rows, width / columns)
    if factor == 1:
        return image, (1.0, 1.0)
    new_rows = min(max(round(rows * factor), 1), height)
    new_columns = min(max(round(columns * factor), 1), width)
    resized = Pillow.fromarray(image).resize((new_columns, new_rows), Pillow.Resampling.BILINEAR)
    return np.asarray(resized), (new_columns / columns, new_rows / rows)


def unfit(boxes: npt.NDArray[np.float32], scale: Scale) -> npt.NDArray[np.float32]:
    """Boxes [N, 4] in network pixels -> in pixels of the image that `fit` gave `scale` for."""
    horizontal, vertical = scale
    factors = np.array([horizontal, vertical, horizontal, vertical], np.float32)
    return np.divide(boxes, factors, dtype=np.float32)


def drop_padding(boxes: npt.ArrayLike, scores: npt.ArrayLike, labels: npt.ArrayLike) -> Detections:
    """A detector's raw outputs, with or without a batch axis of 1, without the rows that only pad (score below 0).

    Raises:
        StepError: a score or the box of a detection is NaN or infinite, or the shapes do not belong together.
    """
    flat_scores = np.asarray(scores, np.float32).reshape(-1)
    flat_boxes, flat_labels = np.asarray(boxes, np.float32), np.asarray(labels)
    if flat_boxes.size != 4 * flat_scores.size or flat_labels.size != flat_scores.size:
        shapes = f"boxes {flat_boxes.shape}, scores {np.shape(scores)}, labels {flat_labels.shape}"
        raise StepError(f"the model's outputs do not belong together: {shapes}; expected [N, 4], [N] and [N]")
    if not np.isfinite(flat_scores).all():
        raise StepError(f"the model returned {_kind(flat_scores)} scores")
    valid = flat_scores >= 0
    kept = flat_boxes.reshape(-1, 4)[valid]
    if not np.isfinite(kept).all():
        raise StepError(f"the model returned {_kind(kept)} boxes")
    return Detections(kept, flat_scores[valid], flat_labels.reshape(-1)[valid].astype(np.int64))


def per_image(count: int, boxes: npt.ArrayLike, scores: npt.ArrayLike, labels: npt.ArrayLike) -> list[Detections]:
    """A detector's raw outputs for a batch, image by image, without the rows that only pad.

    Args:
        count: images in the batch. Of one image the outputs may lack the batch axis.
        boxes: [count, D, 4].
        scores: [count, D].
        labels: [count, D].

    Raises:
        StepError: as `drop_padding`, or the outputs are not those of so many images.
    """
    if count == 1:
        return [drop_padding(boxes, scores, labels)]
    parts = [np.asarray(part) for part in (boxes, scores, labels)]
    if [part.ndim for part in parts] != [3, 2, 2] or any(len(part) != count for part in parts):
        shapes = f"boxes {parts[0].shape}, scores {parts[1].shape}, labels {parts[2].shape}"
        raise StepError(
            f"the model's outputs for {count} images are {shapes}; expected [{count}, D, 4] and twice [{count}, D]"
        )
    return [drop_padding(*(part[index] for part in parts)) for index in range(count)]


def in_batches(images: Sequence[npt.NDArray[np.float32]], size: int) -> list[npt.NDArray[np.float32]]:
    """Fitted images [1, 3, H, W] as batches [size, 3, H, W]; the last is filled up with its last image."""
    groups = [list(images[start : start + size]) for start in range(0, len(images), size)]
    return [np.concatenate([*group, *group[-1:] * (size - len(group))]) for group in groups]


def _kind(values: npt.NDArray[np.float32]) -> str:
    return "NaN" if np.isnan(values).any() else "infinite"


def write_detections(path: Path, detections: dict[str, Detections]) -> None:
    """Writes `{file name: {"boxes", "scores", "labels"}}` as JSON, boxes in image pixels."""
    document = {
        name: {
            "boxes": [[round(side, _COORDINATE_DECIMALS) for side in box] for box in found.boxes.tolist()],
            "scores": [round(score, _SCORE_DECIMALS) for score in found.scores.tolist()],
            "labels": found.labels.tolist(),
        }
        for name, found in detections.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def read_detections(path: Path) -> dict[str, Detections]:
    """Reads what `write_detections` wrote."""
    return {
        name: Detections(
            np.asarray(found["boxes"], np.float32).reshape(-1, 4),
            np.asarray(found["scores"], np.float32),
            np.asarray(found["labels"], np.int64),
        )
        for name, found in json.loads(path.read_text()).items()
    }


def evaluate(detections: dict[str, Detections], split: DetectionSplit) -> dict[Metric, float]:
    """COCO's mean average precision over all images of `split`; an image without an entry counts as "nothing found".

    Args:
        detections: file name -> what was found, boxes in image pixels, labels as in the split's categories.
        split: the truth.

    Returns:
        AP at IoU 0.5 and the mean over IoU 0.50:0.95, each in 0..1.

    Raises:
        StepError: a box or a score is NaN or infinite, or an image is not in the split.
        UserError: the split has no boxes, so that nothing can be measured on it.
    """
    from faster_coco_eval import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    if not split.can_judge:
        raise UserError(f"annotations {split.annotations} have no boxes, so accuracy cannot be measured on them")
    results = as_coco_results(detections, split)
    if not results:
        return dict.fromkeys(METRICS[Task.DETECTION], 0.0)
    truth = COCO(split.document)
    scoring = COCOeval_faster(truth, truth.loadRes(results), iouType="bbox", print_function=_ignore)
    scoring.params.maxDets = [1, 10, MAX_DETECTIONS]
    scoring.evaluate()
    scoring.accumulate()
    precision: npt.NDArray[np.float64] = np.asarray(scoring.eval["precision"])
    all_areas, most_detections = 0, -1
    precision = precision[..., all_areas, most_detections]
    return {Metric.MAP50: mean_precision(precision[:1]), Metric.MAP: mean_precision(precision)}


def as_coco_results(detections: dict[str, Detections], split: DetectionSplit) -> list[dict[str, Any]]:
    """Detections in COCO's result format.

    Raises:
        StepError: a box or a score is NaN or infinite, or an image is not in the split.
    """
    ids = {image.file_name: image.id for image in split.images}
    results = []
    for name, found in detections.items():
        if name not in ids:
            raise StepError(f"detections for {name!r}, which is not in {split.annotations}")
        found = drop_padding(*found)
        for (x1, y1, x2, y2), score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": ids[name], "category_id": label, "bbox": box, "score": score})
    return results


def mean_precision(precision: npt.NDArray[np.float64]) -> float:
    """The mean of COCO's precisions, 0 where there are none."""
    # -1 marks a category without a true box, which COCO leaves out of the mean.
    counted = precision[precision > -1]
    mean = float(counted.mean()) if counted.size else 0.0
    return mean if math.isfinite(mean) else 0.0


def _ignore(*_: Any) -> None:
    """Takes COCOeval's chatter."""
