"""What the ladder asks of a task: how to read a split, prepare a sample, understand and judge a model's outputs.

Nobody else knows what a detector or a text classifier is. A new task is one more module behind `task_adapter`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Job, Metric, Task
from components.core.feeds import Feed

if TYPE_CHECKING:
    from components.core.contracts.job import Preprocess

Inputs = Feed
"""A model's inputs by name; the first axis of each is the batch."""

ANNOTATIONS = "annotations.json"
"""Name of a split's file in a bundle, of every task."""
MEDIA = "images"
"""Name of the folder beside it with what the samples are made of: images or recordings; a text split has none."""


class Sample(Protocol):
    """One sample of a split."""

    @property
    def name(self) -> str:
        """Unique in the split."""

    def load(self) -> Any:
        """What `TaskAdapter.encode` takes: a decoded image, a text, a waveform.

        Raises:
            UserError: the file is missing or damaged.
        """


class Dataset(Protocol):
    """A split that was read, with its truth."""

    @property
    def annotations(self) -> Path:
        """The file that it was read from."""

    @property
    def samples(self) -> Sequence[Sample]:
        """In the order of the file."""

    @property
    def labels(self) -> Mapping[int, str]:
        """Class id -> name."""

    @property
    def can_judge(self) -> bool:
        """Whether there is a truth that an accuracy could be of."""

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """Some of the samples, in this order, with their truth."""

    def unseen(self, indices: Sequence[int]) -> str:
        """What these samples show nothing of though the split does, for a person; empty if nothing is amiss."""


class TaskAdapter(Protocol):
    """A task, with the settings of a job."""

    metrics: tuple[Metric, ...]
    """What `evaluate` gives."""
    inputs: tuple[str, ...]
    """Names that exported models give their inputs, in the order of the torch module's arguments."""
    outputs: tuple[str, ...]
    """Names that exported models give their outputs."""
    noun: str
    """What a sample is called: `image`, `text`, `recording`."""

    def read(self, annotations: Path, media: Path) -> Any:
        """Reads a split as `fetch` leaves it: a `Dataset`.

        Raises:
            UserError: the file is missing or no such split.
        """

    def encode(self, raw: Any) -> tuple[Inputs, Any]:
        """A loaded sample -> the model's inputs with a batch axis of 1, and what `decode` needs."""

    def predictions(self, count: int, outputs: Sequence[npt.ArrayLike]) -> list[Any]:
        """A model's outputs for a batch -> a prediction a sample, in terms of the model's input.

        Args:
            count: samples in the batch.
            outputs: in the order of `outputs`.

        Raises:
            StepError: they are NaN, infinite, or not those of such a model.
        """

    def decode(self, prediction: Any, context: Any) -> Any:
        """A prediction in terms of the sample."""

    def write_predictions(self, path: Path, found: Mapping[str, Any]) -> None:
        """Writes predictions by sample name, as JSON."""

    def read_predictions(self, path: Path) -> dict[str, Any]:
        """Reads what `write_predictions` wrote."""

    def evaluate(self, found: Mapping[str, Any], dataset: Any) -> dict[Metric, float]:
        """Accuracies (0..1) over all samples of a split; a sample without a prediction counts as wrong.

        Raises:
            StepError: a prediction is of no sample or of no class of the split.
            UserError: the split has no truth.
        """


def task_adapter(job: Job, bundle: Path | None = None) -> TaskAdapter:
    """The adapter of a job's task.

    Args:
        job: task, input shape and preprocessing.
        bundle: `fetch`'s folder, which has the tokenizer of a text model.
    """
    return adapter_of(job.task, job.target.input_shape, job.preprocess, bundle)


def adapter_of(
    task: Task, input_shape: Sequence[int], preprocess: "Preprocess", bundle: Path | None = None
) -> TaskAdapter:
    """The adapter of a task; see `task_adapter`."""
    if task is Task.DETECTION:
        from components.core.tasks.detection_adapter import DetectionAdapter

        return DetectionAdapter(input_shape[2], input_shape[3])
    if task is Task.CLASSIFICATION:
        from components.core.tasks.classification import ClassificationAdapter

        return ClassificationAdapter(input_shape, preprocess)
    if task is Task.TEXT:
        from components.core.tasks.text import TextAdapter

        return TextAdapter(input_shape, preprocess, bundle)
    from components.core.tasks.audio import AudioAdapter

    return AudioAdapter(input_shape, preprocess)


def read_split(adapter: TaskAdapter, bundle: Path, name: str) -> Any:
    """A split of a bundle, `train` or `test`; see `TaskAdapter.read`."""
    folder = bundle / "data" / name
    return adapter.read(folder / ANNOTATIONS, folder / MEDIA)


def stack(samples: Sequence[Mapping[str, npt.NDArray[Any]]], size: int) -> Inputs:
    """Encoded samples as one batch of `size`, filled up with the last sample."""
    if len(samples) == size == 1:
        return dict(samples[0])
    rows = [*samples, *[samples[-1]] * (size - len(samples))]
    return {name: np.concatenate([row[name] for row in rows]) for name in samples[0]}


def in_batches(samples: Sequence[Mapping[str, npt.NDArray[Any]]], size: int) -> list[Inputs]:
    """Encoded samples as batches of `size`; the last is filled up with its last sample."""
    return [stack(samples[start : start + size], size) for start in range(0, len(samples), size)]
