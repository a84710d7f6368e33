"""Models in files, with their weights apart: above a size they are neither read nor written as a whole."""

from pathlib import Path

import onnx

from components.core.onnx_files import external_bytes, load_graph, load_onnx, save_onnx, save_streamed
from components.surgery.weights import Weights, restore, set_aside

STREAMED = 2**27
"""Bytes of external data from which on they stay in their file; smaller models come and go in one piece."""


def read_model(path: Path) -> tuple[onnx.ModelProto, Weights]:
    """Reads an ONNX file, as a skeleton and its weights; large external data is mapped and not loaded.

    Raises:
        UserError: the file is missing, damaged or unsafe; see `load_onnx`.
    """
    model = load_graph(path)
    if external_bytes(model) < STREAMED:
        model = load_onnx(path)
    return set_aside(model, folder=path.parent)


def write_model(skeleton: onnx.ModelProto, weights: Weights, path: Path) -> list[Path]:
    """Writes a model; large weights go one after the other into ``<name>.data`` beside it.

    Returns:
        The files written, the model first.
    """
    if weights.streamed:
        return save_streamed(skeleton, path, weights.array)
    return save_onnx(restore(skeleton, weights), path)
