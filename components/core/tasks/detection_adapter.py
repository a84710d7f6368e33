"""Object detection behind the interface of all tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy.typing as npt

from components.core.contracts.job import METRICS, Metric, Task
from components.core.tasks.adapter import Inputs
from components.core.tasks.detection import (
    Detections,
    DetectionSplit,
    Image,
    Scale,
    evaluate,
    fit,
    per_image,
    read_detections,
    read_split,
    unfit,
    write_detections,
)


class DetectionAdapter:
    """See `TaskAdapter`; predictions are `Detections`.

    Args:
        height: of the network's input, in pixels; 0 where only outputs are to be understood.
        width: of the same.
    """

    metrics: tuple[Metric, ...] = METRICS[Task.DETECTION]
    inputs: tuple[str, ...] = ("image",)
    outputs: tuple[str, ...] = ("boxes", "scores", "labels")
    noun: str = "image"

    def __init__(self, height: int = 0, width: int = 0) -> None:
        self._size = (height, width)

    def read(self, annotations: Path, media: Path) -> DetectionSplit:
        """See `TaskAdapter.read`."""
        return read_split(annotations, media)

    def encode(self, raw: Image) -> tuple[Inputs, Scale]:
        """See `TaskAdapter.encode`: an image [H, W, 3], letterboxed."""
        batch, scale = fit(raw, *self._size)
        return {"image": batch}, scale

    def predictions(self, count: int, outputs: Sequence[npt.ArrayLike]) -> list[Detections]:
        """See `TaskAdapter.predictions`; boxes are in pixels of the network's input."""
        boxes, scores, labels = outputs
        return per_image(count, boxes, scores, labels)

    def decode(self, prediction: Detections, context: Scale) -> Detections:
        """See `TaskAdapter.decode`; boxes are in pixels of the image."""
        return prediction._replace(boxes=unfit(prediction.boxes, context))

    def write_predictions(self, path: Path, found: Mapping[str, Detections]) -> None:
        """See `TaskAdapter.write_predictions`."""
        write_detections(path, dict(found))

    def read_predictions(self, path: Path) -> dict[str, Detections]:
        """See `TaskAdapter.read_predictions`."""
        return read_detections(path)

    def evaluate(self, found: Mapping[str, Detections], dataset: DetectionSplit) -> dict[Metric, float]:
        """See `TaskAdapter.evaluate`: COCO's mean average precision."""
        return evaluate(dict(found), dataset)
