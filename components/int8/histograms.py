"""What values the tensors of an ONNX model take: one pass over the calibration images serves every calibrator."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.core.feeds import Batch, feed

if TYPE_CHECKING:
    import onnx

BINS = 4096
"""Bins of a histogram; even, so that two halves can be merged without rounding."""
_SAMPLE = 16_384
"""Values of a tensor that one image adds to its histogram; smallest and largest are taken over all of them."""


@dataclass
class Histogram:
    """How often which values occur, over ``[-reach, reach]``."""

    counts: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    reach: float = 0.0
    low: float = 0.0
    """Smallest value seen, at most 0: quantization must be able to say 0, which padding is made of."""
    high: float = 0.0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Counts values; the reach doubles, merging bins in pairs, until they fit."""
        flat = np.asarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(
                "calibration drives the FP32 model to NaN or infinite values; check the model and the images"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if largest == 0:
            self.counts[BINS // 2] += min(flat.size, _SAMPLE)
            return
        if self.reach == 0:
            self.reach = float(np.exp2(np.ceil(np.log2(largest))))
        while largest > self.reach:
            self._double()
        # An odd stride walks over all columns and channels, whose numbers are mostly even.
        stride = max(flat.size // _SAMPLE, 1) | 1
        taken = flat[::stride]
        indices = ((taken + np.float32(self.reach)) * np.float32(BINS / 2 / self.reach)).astype(np.int64)
        self.counts += np.bincount(np.clip(indices, 0, BINS - 1), minlength=BINS)

    def _double(self) -> None:
        merged = self.counts.reshape(BINS // 2, 2).sum(axis=1)
        self.counts = np.zeros(BINS)
        self.counts[BINS // 4 : BINS // 4 + BINS // 2] = merged
        self.reach *= 2

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """Value at the middle of every bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach, np.float64)


def collect_histograms(
    model: "onnx.ModelProto",
    tensors: Iterable[str],
    batches: Sequence[Batch],
    each: Callable[[int], None] = lambda _: None,
) -> dict[str, Histogram]:
    """Runs the FP32 model on every batch and counts what the tensors hold.

    Only one batch's values are in memory at a time.

    Args:
        model: FP32.
        tensors: names of float tensors: inputs of the model or results of its nodes.
        batches: real inputs.
        each: told how many batches are done.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    from components.int8.heads import session_for, with_outputs

    given = [value.name for value in model.graph.input]
    inner = [name for name in dict.fromkeys(tensors) if name not in given]
    found = {name: Histogram() for name in dict.fromkeys(tensors)}
    session = session_for(with_outputs(model, inner))
    for number, batch in enumerate(batches):
        each(number)
        fed = feed(batch, given)
        for name in fed.keys() & found.keys():
            found[name].add(fed[name])
        for name, values in zip(inner, session.run(inner, fed) if inner else [], strict=True):
            found[name].add(values)
    return found
