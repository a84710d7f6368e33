"""Image classification: an image fitted into the input, normalised; logits out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Fit, Preprocess
from components.core.tasks.adapter import Inputs
from components.core.tasks.detection import Image, fit, load_image
from components.core.tasks.labelled import LabelAdapter, LabelledSplit, read_labelled


class ClassificationAdapter(LabelAdapter):
    """See `TaskAdapter`.

    Args:
        input_shape: [N, 3, H, W].
        preprocess: how an image is fitted, and mean and deviation of the channels.
    """

    inputs: tuple[str, ...] = ("image",)
    noun: str = "image"

    def __init__(self, input_shape: Sequence[int], preprocess: Preprocess) -> None:
        self._height, self._width = input_shape[2], input_shape[3]
        self._preprocess = preprocess
        self._mean = np.asarray(preprocess.mean, np.float32).reshape(1, 3, 1, 1)
        self._std = np.asarray(preprocess.std, np.float32).reshape(1, 3, 1, 1)

    def read(self, annotations: Path, media: Path) -> LabelledSplit:
        """See `TaskAdapter.read`."""
        return read_labelled(annotations, media, load_image)

    def encode(self, raw: Image) -> tuple[Inputs, None]:
        """See `TaskAdapter.encode`: an image [H, W, 3] of uint8 -> ``image`` float32 [1, 3, height, width]."""
        pixels = fitted(raw, self._height, self._width, self._preprocess)
        return {"image": (pixels - self._mean) / self._std}, None


def fitted(image: Image, height: int, width: int, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """An image in the input's size, bilinear, in 0..1.

    `stretch` changes the aspect ratio, `letterbox` pads with 0 at the right or the bottom, `crop` resizes the shorter
    side to ``side / crop_share`` and keeps the middle, as torchvision's ImageNet evaluation does.

    Returns:
        float32 [1, 3, height, width].
    """
    if preprocess.fit is Fit.LETTERBOX:
        return fit(image, height, width)[0]
    if preprocess.fit is Fit.CROP:
        image = _cropped(image, height, width, preprocess.crop_share)
    pixels = np.divide(_resized(image, height, width).transpose(2, 0, 1)[None], np.float32(255), dtype=np.float32)
    return np.ascontiguousarray(pixels)


def _resized(image: Image, height: int, width: int) -> Image:
    from PIL import Image as Pillow

    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Pillow.fromarray(image).resize((width, height), Pillow.Resampling.BILINEAR))


def _cropped(image: Image, height: int, width: int, share: float) -> Image:
    """The middle part that has the input's aspect ratio and `share` of the side that limits it."""
    rows, columns = image.shape[:2]
    factor = share * min(rows / height, columns / width)
    tall, wide = max(round(height * factor), 1), max(round(width * factor), 1)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    return image[top : top + tall, left : left + wide]
