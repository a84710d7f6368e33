"""Inputs of a model by name: what is calibrated with, compared on and timed with where a model is no image model."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import StepError, UserError

Feed = dict[str, npt.NDArray[Any]]
"""One call's inputs: name -> array, the batch along the first axis."""
Batch = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
"""One call's inputs; an array alone is the first input."""


def size_of(batch: Batch) -> int:
    """How many samples a batch has."""
    return len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)


def feed(batch: Batch, names: Sequence[str]) -> Feed:
    """The arrays by the names that a model has for its inputs: by name where it has ours, else in order.

    Raises:
        StepError: the model wants more than the task gives.
    """
    if not isinstance(batch, Mapping):
        batch = {names[0]: batch}
    if all(name in batch for name in names):
        return {name: batch[name] for name in names}
    if len(names) > len(batch):
        raise StepError(
            f"the model has the inputs {', '.join(names)}; given: {', '.join(batch)}; export it with these alone"
        )
    return dict(zip(names, batch.values(), strict=False))


def signature_inputs(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Inputs of an ONNX file: name -> (numpy type, shape; -1 where a side is open).

    Raises:
        UserError: no ONNX file, or an input that no array can be.
    """
    import onnx

    from components.core.onnx_files import load_graph

    graph = load_graph(path).graph
    weights = {one.name for one in graph.initializer}
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for value in graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.elem_type:
            raise UserError(f"{path}: its input {value.name} is no tensor; accepted: models whose inputs are arrays")
        dims = tuple(int(dim.dim_value) if dim.dim_value > 0 else -1 for dim in kind.shape.dim)
        found[value.name] = (np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name, dims)
    if not found:
        raise UserError(f"{path}: it has no input, so there is nothing to calibrate")
    return found


def read_feeds(path: Path, model: Path) -> tuple[list[Feed], npt.NDArray[Any] | None]:
    """Calls' inputs from an ``.npz`` file: one array an input, samples along the first axis, and perhaps ``labels``.

    Args:
        path: the arrays; for a model of one input the array may have any name.
        model: ONNX file that is fed; its batch says how many samples a call has (1 where it is open).

    Returns:
        The calls, samples that do not fill one left out; and the labels of their samples, or None.

    Raises:
        UserError: a file or an array that does not fit.
    """
    arrays = read_arrays(path)
    labels = arrays.pop("labels", None)
    inputs = signature_inputs(model)
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {next(iter(inputs)): next(iter(arrays.values()))}
    if set(arrays) != set(inputs):
        given, wanted = ", ".join(sorted(arrays)) or "none", ", ".join(inputs)
        raise UserError(f"{path}: given the arrays {given}; {model.name} has the inputs {wanted}; name them so")
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        said = ", ".join(f"{name} {len(one) if one.ndim else 0}" for name, one in arrays.items())
        raise UserError(f"{path}: samples by array: {said}; accepted: at least one, and as many in every array")
    (count,) = counts
    if labels is not None and len(labels) != count:
        raise UserError(f"{path}: given {len(labels)} labels for {count} samples; give one a sample")
    ready = {name: _fitting(path, name, array, *inputs[name]) for name, array in arrays.items()}
    batch = max(next(iter(inputs.values()))[1][:1] or (1,))
    batch = batch if batch > 0 else 1
    if count < batch:
        raise UserError(f"{path}: {count} samples; {model.name} takes {batch} at once; give more")
    calls = range(count // batch)
    feeds = [{name: array[one * batch : (one + 1) * batch] for name, array in ready.items()} for one in calls]
    return feeds, labels[: len(feeds) * batch] if labels is not None else None


def read_arrays(path: Path, called: str = "") -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file by name; nothing in it is unpickled.

    Args:
        path: the file.
        called: what errors call it; default: its path.

    Raises:
        UserError: no such file, or no .npz file of plain arrays.
    """
    where = called or path
    if not path.is_file():
        raise UserError(f"{where}: there is no such file; give an .npz file (numpy.savez) with an array an input")
    try:
        with np.load(path, allow_pickle=False) as opened:
            if not isinstance(opened, np.lib.npyio.NpzFile):
                raise UserError(f"{where}: a single array; give an .npz file (numpy.savez) with an array an input")
            return {name: opened[name] for name in opened.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # NumPy's own words would advise to unpickle the file.
        words = getattr(error, "strerror", None) or "it is no .npz file of plain arrays"
        raise UserError(f"{where}: {words}; write one with numpy.savez(file, NAME=array)") from error


def _fitting(path: Path, name: str, array: npt.NDArray[Any], kind: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """The array in the input's type; refuses another shape and numbers that the type cannot hold."""
    given, wanted = array.shape[1:], tuple(shape[1:])
    if len(given) != len(wanted) or any(side not in (-1, own) for own, side in zip(given, wanted, strict=True)):
        said = ", ".join("any" if side == -1 else str(side) for side in wanted)
        raise UserError(f"{path}: {name} has samples of shape {list(given)}; accepted: [{said}]")
    if array.dtype.name == kind:
        return array
    if not np.can_cast(array.dtype, kind, casting="same_kind"):
        raise UserError(f"{path}: {name} has the type {array.dtype}; accepted: {kind}")
    return array.astype(kind)
