"""Audio classification: a recording as a waveform, or as a log-mel spectrogram made in one fixed way; logits out."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Features, Preprocess
from components.core.errors import UserError
from components.core.tasks.adapter import Inputs
from components.core.tasks.labelled import LabelAdapter, LabelledSplit, read_labelled

WINDOW, HOP = 0.025, 0.010
"""Seconds of a frame, and between two frames."""
FLOOR = 1e-6
"""Added to every mel energy before the logarithm; what padding is made of."""

Waveform = npt.NDArray[np.float32]
"""[samples] in -1..1, one channel."""


class AudioAdapter(LabelAdapter):
    """See `TaskAdapter`.

    Args:
        input_shape: [N, mels, frames], or [N, samples] of waveforms.
        preprocess: sample rate and features.
    """

    inputs: tuple[str, ...] = ("audio",)
    noun: str = "recording"

    def __init__(self, input_shape: Sequence[int], preprocess: Preprocess) -> None:
        self._shape = tuple(input_shape[1:])
        self._preprocess = preprocess

    def read(self, annotations: Path, media: Path) -> LabelledSplit:
        """See `TaskAdapter.read`."""
        rate = self._preprocess.sample_rate
        return read_labelled(annotations, media, lambda path: load_recording(path, rate))

    def encode(self, raw: Waveform) -> tuple[Inputs, None]:
        """See `TaskAdapter.encode`: ``audio`` float32, [1, samples] or [1, mels, frames]; cut or padded at the end."""
        if self._preprocess.features is Features.WAVEFORM:
            return {"audio": _fixed(raw, self._shape[0], 0.0)[None]}, None
        mels, frames = self._shape
        features = log_mel(raw, self._preprocess.sample_rate, mels, frames)
        return {"audio": features[None]}, None


def load_recording(path: Path, sample_rate: int) -> Waveform:
    """A WAV or FLAC file as one channel, the mean of all; float32 [samples] in -1..1.

    Raises:
        UserError: the file is missing, damaged, or of another sample rate.
    """
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise UserError(f"recording {path} cannot be read: {error}; give a whole WAV or FLAC file") from error
    if rate != sample_rate:
        raise UserError(f"recording {path} has {rate} Hz and preprocess.sample_rate is {sample_rate}; give one of both")
    return np.ascontiguousarray(samples.mean(axis=1), np.float32)


def log_mel(waveform: Waveform, sample_rate: int, mels: int, frames: int) -> npt.NDArray[np.float32]:
    """Natural logarithm of mel energies; nothing is normalised, which is left to the model.

    Frames of 25 ms every 10 ms, the first at the start of the recording and none beyond its end, times a periodic Hann
    window, padded with zeros to a power of two; power spectrum; triangular filters, evenly spaced on the HTK mel scale
    (2595 log10(1 + f / 700)) from 0 to half the sample rate, of height 1; plus `FLOOR`; the logarithm. Too long
    recordings lose their end, too short ones get frames of silence.

    Returns:
        [mels, frames].
    """
    length, hop = round(WINDOW * sample_rate), round(HOP * sample_rate)
    size = 1 << (length - 1).bit_length()
    if len(waveform) < length:
        waveform = _fixed(waveform, length, 0.0)
    needed = waveform[: length + hop * (frames - 1)]
    pieces = np.lib.stride_tricks.sliding_window_view(needed, length)[::hop]
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(pieces * window, size)).astype(np.float32) ** 2
    energies = power @ _filters(sample_rate, size, mels).T
    found = np.log(energies + np.float32(FLOOR)).T
    out = np.full((mels, frames), np.log(np.float32(FLOOR)), np.float32)
    out[:, : found.shape[1]] = found[:, :frames]
    return out


@cache
def _filters(sample_rate: int, size: int, mels: int) -> npt.NDArray[np.float32]:
    """Triangles [mels, size / 2 + 1]."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    frequencies = np.linspace(0, sample_rate / 2, size // 2 + 1)
    left, middle, right = (corners[start : start + mels, None] for start in range(3))
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def _fixed(values: npt.NDArray[np.float32], length: int, fill: float) -> npt.NDArray[np.float32]:
    out = np.full(length, fill, np.float32)
    kept = values[:length]
    out[: len(kept)] = kept
    return out
