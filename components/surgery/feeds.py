"""Random inputs for a model, by the shapes and types of its graph."""

import math
from collections.abc import Sequence

import numpy as np
import onnx

from components.surgery.evaluate import EvaluationError

DIMENSIONS = (2, 1, 3, 8, 33, 64)
"""Sizes tried, in this order, for a dimension that the model leaves open, until the model runs."""
_MOST_ELEMENTS = 2**28


def inputs_of(model: onnx.ModelProto, pinned_by: onnx.ModelProto | None = None) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller feeds: those without an initializer.

    Args:
        model: the model.
        pinned_by: a later form of it; dimensions that it fixed are fixed here too. Types stay the model's own.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    later = {value.name: value for value in pinned_by.graph.input} if pinned_by is not None else {}
    values = []
    for value in model.graph.input:
        if value.name not in weights:
            values.append(onnx.ValueInfoProto())
            values[-1].CopyFrom(later.get(value.name, value))
            if value.type.HasField("tensor_type"):
                values[-1].type.tensor_type.elem_type = value.type.tensor_type.elem_type
    return values


def feed(values: Sequence[onnx.ValueInfoProto], seed: int, dimension: int) -> dict[str, np.ndarray]:
    """Random values for inputs.

    Floats that look like images ([N, 1..4, H, W]) are smooth and noisy patches in 0..1, as cameras make them; others
    are standard normal. Integers are 0 or 1, since most integer inputs are indices or masks; each row of a matrix of
    them begins with 1, as the mask of a text does, which is never empty.

    Args:
        values: the inputs, of `inputs_of`.
        seed: same seed, same values.
        dimension: size for dimensions that are left open.

    Raises:
        EvaluationError: an input is no tensor, has no type, or is larger than any that a test could hold.
    """
    rng = np.random.default_rng(seed)
    return {value.name: _random(value, rng, dimension) for value in values}


def _random(value: onnx.ValueInfoProto, rng: np.random.Generator, dimension: int) -> np.ndarray:
    kind = value.type.tensor_type
    shape = [dimension if _is_open(size) else size.dim_value for size in kind.shape.dim]
    if math.prod(shape) > _MOST_ELEMENTS:
        raise EvaluationError(f"the input {value.name!r} of shape {shape} is too large for a test")
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except KeyError as error:
        raise EvaluationError(f"the input {value.name!r} is no tensor, or its type is not known") from error
    return random_values(shape, dtype, rng)


def random_values(shape: list[int], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Random values of a shape and type; see `feed`."""
    if dtype == np.bool_:
        return np.asarray(rng.random(shape) < 0.5)  # of a scalar, a comparison makes no array
    if np.issubdtype(dtype, np.floating):
        if len(shape) == 4 and shape[1] in (1, 2, 3, 4) and min(shape[2:]) >= 16:
            return np.ascontiguousarray(_image(shape, rng), dtype)
        return rng.standard_normal(shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        values = rng.integers(0, 2, shape).astype(dtype)
        if values.ndim == 2:
            values[:, :1] = 1
        return values
    return rng.standard_normal(shape).astype(np.float32).astype(dtype)


def _image(shape: list[int], rng: np.random.Generator) -> np.ndarray:
    """Patches of 2 to 16 pixels with some noise."""
    side = int(rng.choice([2, 4, 8, 16]))
    coarse = rng.random((*shape[:2], -(-shape[2] // side), -(-shape[3] // side)))
    patches = coarse.repeat(side, 2).repeat(side, 3)[:, :, : shape[2], : shape[3]]
    return np.clip(patches + 0.05 * rng.standard_normal(shape), 0, 1)


def dimensions(values: Sequence[onnx.ValueInfoProto]) -> Sequence[int]:
    """Sizes worth trying for the open dimensions; one when there are none."""
    sizes = [size for value in values for size in value.type.tensor_type.shape.dim]
    return DIMENSIONS if any(_is_open(size) for size in sizes) else DIMENSIONS[:1]


def _is_open(size: onnx.TensorShapeProto.Dimension) -> bool:
    """Some exporters write -1 for a dimension that is open."""
    return not size.HasField("dim_value") or size.dim_value < 0
