"""GridSample as a weighted sum of pixels, each picked by a plain nearest GridSample of an image.

Every parser that has GridSample at all picks the nearest pixel of an image alike; what they lack, or read wrongly, is
cubic and volumes. A volume is laid out as an image, slices below one another. Pixels are picked at their centres, so
the rounding of coordinates cannot choose another one.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from components.surgery.emit import Emitter

_CUBIC = -0.75


def pick(emit: Emitter, image: gs.Tensor, sides: Sequence[int], pixels: Sequence[gs.Tensor]) -> gs.Variable:
    """The pixels of an image at whole coordinates.

    Args:
        emit: writes the nodes.
        image: float [N, C, H, W].
        sides: H and W.
        pixels: rows and columns that are inside of the image, float [N, P, 1] each.

    Returns:
        Float [N, C, 1, P].
    """
    normalized = []
    for at, side in reversed(list(zip(pixels, sides, strict=True))):
        double = emit("Add", emit("Mul", at, _number(2)), _number(1))
        normalized.append(emit("Sub", emit("Div", double, _number(side)), _number(1)))
    grid = emit("Unsqueeze", emit("Concat", *normalized, axis=2), np.array([1], np.int64))
    return emit("GridSample", image, grid, mode="nearest", padding_mode="border", align_corners=0)


def places(emit: Emitter, at: gs.Tensor, size: int, *, align_corners: bool) -> gs.Variable:
    """Coordinates of -1..1 in pixels."""
    shifted = emit("Add", at, _number(1))
    if align_corners:
        return emit("Mul", emit("Div", shifted, _number(2)), _number(size - 1))
    return emit("Div", emit("Sub", emit("Mul", shifted, _number(size)), _number(1)), _number(2))


def sample(
    emit: Emitter,
    x: gs.Tensor,
    sizes: Sequence[int],
    at: Sequence[gs.Tensor],
    mode: str,
    padding: str,
    *,
    align_corners: bool,
) -> gs.Tensor:
    """The weighted sum of the pixels around each place.

    Args:
        emit: writes the nodes.
        x: float [N, C, H, W] or [N, C, D, H, W].
        sizes: D, H and W.
        at: places along each of these axes, in pixels, float [N, P, 1] each.
        mode: "nearest", "linear" or "cubic".
        padding: "zeros", "border" or "reflection".
        align_corners: where "reflection" reflects: at the centres of the outer pixels or at their edges.

    Returns:
        Float [N, C, 1, P].
    """
    rows, columns = int(np.prod(sizes[:-1])), sizes[-1]
    image = x if len(sizes) == 2 else emit.reshape(x, [0, 0, rows, columns])
    taps = [_taps(emit, place, mode) for place in at]
    taps = [_bounded(emit, axis, size, padding, align=align_corners) for axis, size in zip(taps, sizes, strict=True)]
    total: gs.Tensor | None = None
    for chosen in itertools.product(*taps):
        row = chosen[0][0]
        for (pixel, _), size in zip(chosen[1:-1], sizes[1:-1], strict=True):
            row = emit("Add", emit("Mul", row, _number(size)), pixel)
        picked: gs.Tensor = pick(emit, image, (rows, columns), (row, chosen[-1][0]))
        weights = [weight for _, weight in chosen if weight is not None]
        if weights:
            weight = weights[0]
            for other in weights[1:]:
                weight = emit("Mul", weight, other)
            turned = emit("Transpose", emit("Unsqueeze", weight, np.array([1], np.int64)), perm=[0, 1, 3, 2])
            picked = emit("Mul", picked, turned)
        total = picked if total is None else emit("Add", total, picked)
    assert total is not None
    return total


Tap = tuple[gs.Tensor, gs.Tensor | None]
"""A whole coordinate and its weight; None: 1."""


def _taps(emit: Emitter, at: gs.Tensor, mode: str) -> list[Tap]:
    if mode == "nearest":
        return [(emit("Round", at), None)]
    first = emit("Floor", at)
    beyond = emit("Sub", at, first)
    if mode == "linear":
        return [(first, emit("Sub", _number(1), beyond)), (emit("Add", first, _number(1)), beyond)]
    distances = [
        emit("Add", beyond, _number(1)),
        beyond,
        emit("Sub", _number(1), beyond),
        emit("Sub", _number(2), beyond),
    ]
    weights = [_far(emit, distances[0]), _near(emit, distances[1]), _near(emit, distances[2]), _far(emit, distances[3])]
    pixels = [emit("Add", first, _number(step)) if step else first for step in (-1, 0, 1, 2)]
    return list(zip(pixels, weights, strict=True))


def _near(emit: Emitter, d: gs.Tensor) -> gs.Variable:
    """((a + 2) d - (a + 3)) d d + 1, the weight of a pixel nearer than 1."""
    inner = emit("Sub", emit("Mul", d, _number(_CUBIC + 2)), _number(_CUBIC + 3))
    return emit("Add", emit("Mul", emit("Mul", inner, d), d), _number(1))


def _far(emit: Emitter, d: gs.Tensor) -> gs.Variable:
    """((a d - 5 a) d + 8 a) d - 4 a, the weight of a pixel between 1 and 2 away."""
    inner = emit("Sub", emit("Mul", d, _number(_CUBIC)), _number(5 * _CUBIC))
    middle = emit("Add", emit("Mul", inner, d), _number(8 * _CUBIC))
    return emit("Sub", emit("Mul", middle, d), _number(4 * _CUBIC))


def _bounded(emit: Emitter, taps: Sequence[Tap], size: int, padding: str, *, align: bool) -> list[Tap]:
    """The taps with their pixels inside of the image, and without weight where zeros are outside."""
    found = []
    for pixel, weight in taps:
        at = _reflected(emit, pixel, size, align=align) if padding == "reflection" else pixel
        inside = emit("Min", emit("Max", at, _number(0)), _number(size - 1))
        if padding == "zeros":
            same = emit.cast(emit("Equal", inside, pixel, dtype=bool), np.float32)
            weight = same if weight is None else emit("Mul", weight, same)
        found.append((inside, weight))
    return found


def _reflected(emit: Emitter, pixel: gs.Tensor, size: int, *, align: bool) -> gs.Tensor:
    """0 1 2 3 2 1 0 if corners are aligned, else 0 1 2 3 3 2 1 0 0."""
    if align and size == 1:
        return emit("Mul", pixel, _number(0))
    period = 2 * (size - 1) if align else 2 * size
    turns = emit("Floor", emit("Div", pixel, _number(period)))
    within = emit("Sub", pixel, emit("Mul", turns, _number(period)))
    back = emit("Sub", _number(period if align else period - 1), within)
    return emit("Min", within, back)


def _number(value: float) -> np.ndarray:
    return np.array(value, np.float32)
