"""Writes a torch module as ONNX with hasten's names: input ``image``; outputs ``boxes``, ``scores``, ``labels``."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.core.errors import StepError, UserError

INPUT = "image"
OUTPUTS = ("boxes", "scores", "labels")
OPSET = 17
"""The newest opset that TorchScript's exporter, TensorRT, OpenVINO and ONNX Runtime all handle in full."""


class StockDetector(nn.Module):
    """A torchvision detector as exported by anyone else: one image in, as many boxes out as it finds.

    Of a batch, the images' detections are padded to the model's most and stacked, since they differ in number.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[1, 3, H, W]`` -> boxes ``[D, 4]``, scores ``[D]``, labels ``[D]``; a batch adds its axis in front.

        Raises:
            UserError: a batch, of a model that does not say how many detections an image may have.
        """
        found = self.model(list(image))
        names = ("boxes", "scores", "labels")
        if len(found) == 1:
            boxes, scores, labels = (found[0][name] for name in names)
            return boxes, scores, labels
        most = most_detections(self.model)
        if most is None:
            raise UserError(
                f"target.input_shape: batch {len(found)} given; {type(self.model).__name__} has no detections_per_img, "
                "so its outputs cannot be padded to one size; give it one, or use a batch of 1"
            )
        boxes, scores, labels = (
            torch.stack([_filled(one[name], most, fill) for one in found])
            for name, fill in zip(names, (0, -1, 0), strict=True)
        )
        return boxes, scores, labels


def most_detections(model: nn.Module) -> int | None:
    """Detections of an image at most, where the model says it as torchvision's do."""
    holders: tuple[Any, ...] = (model, getattr(model, "roi_heads", None))
    return next((int(one.detections_per_img) for one in holders if hasattr(one, "detections_per_img")), None)


def _filled(values: Tensor, count: int, fill: int) -> Tensor:
    # Written into a table and not joined with padding: the table's size is fixed, which surgery can follow.
    table = torch.full((count, *map(int, values.shape[1:])), fill, dtype=values.dtype)
    return table.index_put((torch.arange(values.shape[0]),), values)


def export_onnx(
    module: nn.Module, image: Tensor, path: Path, *, dynamic_detections: bool = False, program: bool = False
) -> None:
    """Exports by tracing (TorchScript), since torchvision's detectors do not pass torch.export.

    Args:
        module: takes ``[N, 3, H, W]``, returns boxes, scores and labels.
        image: traced with; a real one, since a detector that finds nothing traces badly.
        path: file to write.
        dynamic_detections: whether the number of detections differs from image to image; not so in a batch.
        program: whether the module came out of torch.export, which only the newer exporter takes.

    Raises:
        StepError: the module does not export; the exporter's own words are in the message.
    """
    axes = {name: {0: "detections"} for name in OUTPUTS} if dynamic_detections and len(image) == 1 else None
    try:
        with torch.inference_mode(), quiet():
            torch.onnx.export(
                module if program else module.eval(),
                (image,),
                str(path),
                dynamo=program,
                external_data=not program,
                opset_version=OPSET + 1 if program else OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_axes=axes,
            )
    except Exception as error:
        path.unlink(missing_ok=True)
        words = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise StepError(f"torch.onnx.export failed: {words[0]}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporter's warnings about tracing, which a static detector makes moot."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
