"""Signal to quantization noise: how much of a model's output survives rounding, in dB."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SILENT = 200.0
"""dB of an output that is equal bit by bit."""
Outputs = Sequence[Sequence[npt.NDArray[Any]]]
"""For every image, the head outputs."""


def sqnr_db(exact: Outputs, rounded: Outputs) -> float:
    """SQNR of the worst head: ``10 log10(sum(exact^2) / sum((exact - rounded)^2))`` over all images.

    The worst and not the mean, because one head that collapses takes the detector along.

    Args:
        exact: FP32.
        rounded: quantized; same shapes.

    Returns:
        dB; `SILENT` where nothing changed, ``-inf`` for NaN.
    """
    return min(per_head(exact, rounded), default=SILENT)


def per_head(exact: Outputs, rounded: Outputs) -> list[float]:
    """SQNR of every head, in dB."""
    return [_ratio([one[head] for one in exact], [other[head] for other in rounded]) for head in range(len(exact[0]))]


def _ratio(exact: list[npt.NDArray[Any]], rounded: list[npt.NDArray[Any]]) -> float:
    signal = sum(float(np.square(one, dtype=np.float64).sum()) for one in exact)
    noise = sum(
        float(np.square(one.astype(np.float64) - other).sum()) for one, other in zip(exact, rounded, strict=True)
    )
    if not np.isfinite(noise):
        return float("-inf")
    if noise == 0:
        return SILENT
    return float(min(10 * np.log10(max(signal, 1e-300) / noise), SILENT))
