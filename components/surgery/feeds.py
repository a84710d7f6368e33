"""Random inputs for a model, by the shapes and types of its graph."""

from collections.abc import Iterator

import numpy as np
import onnx

DIMENSIONS = (2, 1, 3, 8, 33, 64)
"""Sizes tried, in this order, for a dimension that the model leaves open, until the model runs."""


def feed(model: onnx.ModelProto, seed: int, dimension: int) -> dict[str, np.ndarray]:
    """Random values for each input of the model.

    Floats that look like images ([N, 1..4, H, W]) are smooth and noisy patches in 0..1, as cameras make them; others
    are standard normal. Integers are 0 or 1, since most integer inputs are indices or masks.

    Args:
        model: the model; inputs that have initializers are left to these.
        seed: same seed, same values.
        dimension: size for dimensions that the model leaves open.
    """
    rng = np.random.default_rng(seed)
    weights = {tensor.name for tensor in model.graph.initializer}
    return {value.name: _random(value, rng, dimension) for value in model.graph.input if value.name not in weights}


def _random(value: onnx.ValueInfoProto, rng: np.random.Generator, dimension: int) -> np.ndarray:
    kind = value.type.tensor_type
    shape = [size.dim_value if size.HasField("dim_value") else dimension for size in kind.shape.dim]
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return random_values(shape, dtype, rng)


def random_values(shape: list[int], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Random values of a shape and type; see `feed`."""
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.issubdtype(dtype, np.floating):
        if len(shape) == 4 and shape[1] in (1, 2, 3, 4) and min(shape[2:]) >= 16:
            return np.ascontiguousarray(_image(shape, rng), dtype)
        return rng.standard_normal(shape).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape).astype(np.float32).astype(dtype)


def _image(shape: list[int], rng: np.random.Generator) -> np.ndarray:
    """Patches of 2 to 16 pixels with some noise."""
    side = int(rng.choice([2, 4, 8, 16]))
    coarse = rng.random((*shape[:2], -(-shape[2] // side), -(-shape[3] // side)))
    patches = coarse.repeat(side, 2).repeat(side, 3)[:, :, : shape[2], : shape[3]]
    return np.clip(patches + 0.05 * rng.standard_normal(shape), 0, 1)


def open_dimensions(model: onnx.ModelProto) -> bool:
    """Whether an input of the model has a dimension that is not fixed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return any(
        not size.HasField("dim_value")
        for value in model.graph.input
        if value.name not in weights
        for size in value.type.tensor_type.shape.dim
    )


def dimensions(model: onnx.ModelProto) -> Iterator[int]:
    """Sizes worth trying for the open dimensions; one when there are none."""
    yield from DIMENSIONS if open_dimensions(model) else DIMENSIONS[:1]
