"""What the classifiers of images, texts and recordings share: samples with one label, logits, accuracy, macro F1."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.contracts.job import Metric
from components.core.errors import StepError, UserError

Logits = npt.NDArray[np.float32]
"""[classes], of one sample."""
_DECIMALS = 5
_SHOWN = 5


@dataclass(frozen=True)
class LabelledSample:
    """One sample; a text is in the split's own file, an image or a recording in one of its own."""

    name: str
    label: int
    """Index of the class, which is the index of the model's output."""
    source: Path | str
    reader: Callable[[Any], Any] = field(repr=False, compare=False)

    def load(self) -> Any:
        """The decoded image, the waveform, or the text."""
        return self.reader(self.source)


@dataclass(frozen=True)
class LabelledSplit:
    """A split of a classifier; see `components.core.tasks.adapter.Dataset`."""

    annotations: Path
    samples: tuple[LabelledSample, ...]
    labels: dict[int, str]

    @property
    def can_judge(self) -> bool:
        """Every sample has a label."""
        return bool(self.samples)

    def subset(self, indices: Sequence[int]) -> "LabelledSplit":
        """See `Dataset.subset`."""
        return replace(self, samples=tuple(self.samples[index] for index in indices))

    def unseen(self, indices: Sequence[int]) -> str:
        """See `Dataset.unseen`."""
        seen = {self.samples[index].label for index in indices}
        missing = [
            name
            for label, name in self.labels.items()
            if label not in seen and any(one.label == label for one in self.samples)
        ]
        if not missing:
            return ""
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return f"no sample of {len(missing)} classes is among them: {', '.join(missing[:_SHOWN])}{more}"


def read_labelled(annotations: Path, media: Path, reader: Callable[[Any], Any]) -> LabelledSplit:
    """Reads a split as `fetch` leaves it: ``{"labels": [name], "samples": [{"name", "label", "text"?}]}``.

    Args:
        annotations: JSON file.
        media: folder that the samples' names are files of, unless a sample has a text.
        reader: loads a file, or takes a text.

    Raises:
        UserError: the file is missing or no such split.
    """
    try:
        document = json.loads(annotations.read_text())
        names = [str(name) for name in document["labels"]]
        samples = tuple(
            LabelledSample(str(one["name"]), int(one["label"]), one.get("text", media / str(one["name"])), reader)
            for one in document["samples"]
        )
    except OSError as error:
        raise UserError(f"samples {annotations} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{annotations} is no list of labelled samples ({error!r}); run `hasten fetch` again"
        ) from error
    if not samples or not all(0 <= sample.label < len(names) for sample in samples):
        raise UserError(f"{annotations} has no samples, or one of a class that it does not list")
    return LabelledSplit(annotations, samples, dict(enumerate(names)))


def write_labelled(annotations: Path, labels: Sequence[str], samples: Sequence[Mapping[str, Any]]) -> None:
    """Writes what `read_labelled` reads."""
    from components.core.files import write_json_atomic

    write_json_atomic(annotations, {"labels": list(labels), "samples": [dict(one) for one in samples]})


class LabelAdapter:
    """The part of `TaskAdapter` that all classifiers share; predictions are `Logits`."""

    metrics: tuple[Metric, ...] = (Metric.ACCURACY, Metric.MACRO_F1)
    outputs: tuple[str, ...] = ("logits",)

    def predictions(self, count: int, outputs: Sequence[npt.ArrayLike]) -> list[Logits]:
        """See `TaskAdapter.predictions`: logits [count, classes]."""
        logits = np.asarray(outputs[0], np.float32)
        if logits.ndim == 1 and count == 1:
            logits = logits[None]
        if logits.ndim != 2 or len(logits) != count or not logits.shape[1]:
            raise StepError(f"the model's output for {count} samples is {logits.shape}; expected [{count}, classes]")
        if not np.isfinite(logits).all():
            raise StepError(f"the model returned {'NaN' if np.isnan(logits).any() else 'infinite'} logits")
        return list(logits.copy())

    def decode(self, prediction: Logits, context: Any) -> Logits:  # noqa: ARG002
        """See `TaskAdapter.decode`: a class is a class."""
        return prediction

    def write_predictions(self, path: Path, found: Mapping[str, Logits]) -> None:
        """See `TaskAdapter.write_predictions`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: [round(value, _DECIMALS) for value in logits.tolist()] for name, logits in found.items()}
        path.write_text(json.dumps(rows))

    def read_predictions(self, path: Path) -> dict[str, Logits]:
        """See `TaskAdapter.read_predictions`."""
        return {name: np.asarray(logits, np.float32) for name, logits in json.loads(path.read_text()).items()}

    def evaluate(self, found: Mapping[str, Logits], dataset: LabelledSplit) -> dict[Metric, float]:
        """See `TaskAdapter.evaluate`: top-1 accuracy, and the mean F1 of the classes that occur."""
        truth = {sample.name: sample.label for sample in dataset.samples}
        classes = len(dataset.labels)
        for name, logits in found.items():
            if name not in truth:
                raise StepError(f"a prediction for {name!r}, which is not in {dataset.annotations}")
            if len(logits) != classes:
                raise StepError(f"the model has {len(logits)} outputs and the data {classes} classes")
        chosen = {name: int(np.argmax(logits)) for name, logits in found.items()}
        pairs = [(label, chosen.get(name, -1)) for name, label in truth.items()]
        right = sum(label == guess for label, guess in pairs)
        return {Metric.ACCURACY: right / len(pairs), Metric.MACRO_F1: macro_f1(pairs)}


def macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """Mean over the classes of 2TP / (2TP + FP + FN), as scikit-learn's `f1_score(average="macro")`.

    Args:
        pairs: true class and guess of each sample; a guess of -1 is none.

    Returns:
        0..1; classes that are neither the truth nor a guess of any sample are left out.
    """
    right = Counter(label for label, guess in pairs if label == guess)
    true, guessed = Counter(label for label, _ in pairs), Counter(guess for _, guess in pairs)
    classes = sorted((true.keys() | guessed.keys()) - {-1})
    return float(np.mean([2 * right[one] / (true[one] + guessed[one]) for one in classes]))


def probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """Softmax, for what a person reads; [classes]."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum())
