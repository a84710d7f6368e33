"""Test samples of a classifier with what the baseline and the winner say of them, side by side."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Job, Task
from components.core.contracts.leaderboard import Candidate
from components.core.errors import UserError
from components.core.formats import plain
from components.core.stepping import one_line
from components.core.storage import materialize
from components.core.tasks.adapter import read_split, task_adapter
from components.core.tasks.labelled import LabelledSample, LabelledSplit, Logits, probabilities
from components.report.strip import Pair, Panel, Picture, Strip

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLES = 8
_LONGEST_TEXT = 400
_SIDE = 280
"""Longest side of a picture, in pixels."""
_SMALLEST = 112
"""Shorter images are enlarged to it, without smoothing, so that their pixels can be seen."""
_MELS, _FRAMES = 64, 300
_HINT = (
    "Spread evenly over the test split, not chosen by result. Beside each class is the probability that the model "
    "gives it."
)
Found = list[tuple[Candidate, Mapping[str, Logits]]]


def examples(job: Job, rows: list[Candidate], bundle: Path) -> Strip:
    """Up to `SAMPLES` test samples with every row's class and its probability.

    What cannot be read is left out and named in `note`; the report never fails for its examples.
    """
    adapter = task_adapter(job, bundle)
    title = f"Test {adapter.noun}s"
    try:
        split: LabelledSplit = read_split(adapter, bundle, "test")
    except UserError as error:
        return Strip((), (), one_line(error), title, _HINT)
    found: Found = []
    notes = []
    for row in rows:
        uri = row.details.get("detections")
        if not isinstance(uri, str):
            notes.append(f"{row.id} has no predictions to show")
            continue
        try:
            found.append((row, adapter.read_predictions(materialize(uri))))
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"the predictions of {row.id} cannot be read: {one_line(error)}")
    if not found:
        return Strip((), (), "; ".join(notes), title, _HINT)
    pairs = []
    for sample in _chosen(split, found):
        try:
            pairs.append(_pair(sample, split, found, job))
        except (UserError, ImportError) as error:
            notes.append(f"{sample.name}: {one_line(error)}")
    return Strip(tuple(pairs), (), "; ".join(notes), title, _HINT)


def _chosen(split: LabelledSplit, found: Found) -> list[LabelledSample]:
    """Samples that every row has a prediction for, spread evenly."""
    pool = [sample for sample in split.samples if all(sample.name in logits for _, logits in found)]
    count = min(SAMPLES, len(pool))
    return [pool[round(index * (len(pool) - 1) / max(count - 1, 1))] for index in range(count)]


def _pair(sample: LabelledSample, split: LabelledSplit, found: Found, job: Job) -> Pair:
    truth = split.labels[sample.label]
    panels = tuple(Panel(row.id, _words(logits[sample.name], split.labels, truth)) for row, logits in found)
    name = f"{plain(sample.name)}, in truth {plain(truth)}"
    if job.task is Task.TEXT:
        text = plain(sample.load())
        return Pair(name, panels, text=text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…")
    picture = _spectrogram(sample.load(), job.preprocess.sample_rate) if job.task is Task.AUDIO else _image(sample)
    alt = f"{plain(sample.name)}: {'spectrogram of a recording' if job.task is Task.AUDIO else 'image'}"
    return Pair(name, panels, picture=_encoded(picture, alt))


def _words(logits: Logits, labels: Mapping[int, str], truth: str) -> str:
    chosen = int(logits.argmax())
    said = plain(labels.get(chosen, chosen))
    verdict = "" if said == plain(truth) else ", which is wrong"
    return f"{said} ({float(probabilities(logits)[chosen]):.3f}){verdict}"


def _image(sample: LabelledSample) -> "Image":
    from PIL import Image

    image = Image.fromarray(sample.load())
    if max(image.size) < _SMALLEST:
        factor = -(-_SMALLEST // max(image.size))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((_SIDE, _SIDE))
    return image


def _spectrogram(waveform: Any, sample_rate: int) -> "Image":
    """Log-mel energies of up to three seconds, low notes at the bottom, loud ones bright."""
    from PIL import Image

    from components.core.tasks.audio import HOP, WINDOW, log_mel

    seconds = len(waveform) / sample_rate
    frames = min(max(round((seconds - WINDOW) / HOP) + 1, 1), _FRAMES)
    values = log_mel(waveform, sample_rate, _MELS, frames)[::-1]
    low, high = float(values.min()), float(values.max())
    scaled: npt.NDArray[np.uint8] = ((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    return Image.fromarray(scaled).resize((max(frames, _MELS), 2 * _MELS))


def _encoded(image: "Image", alt: str) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return Picture(
        f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", image.width, image.height, alt
    )
