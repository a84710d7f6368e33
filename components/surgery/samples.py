"""Real inputs of a model, for the proof: `.npz` files with one array for each input, by its name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from components.core.errors import UserError
from components.core.feeds import read_arrays
from components.core.onnx_wire import TensorInfo, signature


def read_samples(paths: Sequence[Path], model: Path) -> list[Mapping[str, np.ndarray]]:
    """One set of inputs a file.

    Args:
        paths: `.npz` files (`numpy.savez("frame.npz", image=array)`).
        model: ONNX file whose inputs they are.

    Raises:
        UserError: a file is missing or no `.npz`, an input is missing, or an array does not fit its input.
    """
    if not paths:
        return []
    inputs = signature(model)[0]
    return [_read(path, inputs) for path in paths]


def _read(path: Path, inputs: Sequence[TensorInfo]) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, f"--input: {path.name}")
    names = [tensor.name for tensor in inputs]
    if missing := [name for name in names if name not in arrays]:
        given = ", ".join(arrays) or "nothing"
        raise UserError(
            f"--input: {path.name}: given {given}, needed: {', '.join(names)} ({', '.join(missing)} missing)"
        )
    for tensor in inputs:
        _check(path, tensor, arrays[tensor.name])
    return {name: arrays[name] for name in names}


def _check(path: Path, tensor: TensorInfo, array: np.ndarray) -> None:
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    fits = len(array.shape) == len(tensor.shape) and all(
        wanted in (-1, given) for wanted, given in zip(tensor.shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        wanted = f"{dtype} {[size if size >= 0 else '?' for size in tensor.shape]}"
        given = f"{array.dtype} {list(array.shape)}"
        raise UserError(f"--input: {path.name}: {tensor.name} is {given}, accepted: {wanted}".replace("'", ""))
