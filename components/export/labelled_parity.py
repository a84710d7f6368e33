"""Compares an exported classifier with the one it came from, sample by sample."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from components.core.tasks.labelled import Logits, probabilities

MAX_DIFFERENCE = 1e-3
"""Of a probability, up to which two models agree."""
REQUIRED_SHARE = 0.99
"""An export is refused when a smaller share of the samples agrees."""


@dataclass(frozen=True)
class LabelledParity:
    """How far two classifiers agree."""

    samples: int
    matched: int
    """Samples whose probabilities all differ by less than 1e-3."""
    max_difference: float
    """Largest difference of a probability."""
    same_class: int
    """Samples that both give the same class."""

    @property
    def agrees(self) -> bool:
        """Whether the export may be used."""
        return self.matched >= REQUIRED_SHARE * self.samples

    @property
    def words(self) -> str:
        """How many agree."""
        return f"{self.matched} of {self.samples} samples agree with the eager model"

    def summary(self) -> dict[str, Any]:
        """The numbers, for a card."""
        return asdict(self) | {"agrees": self.agrees}


def compare_logits(expected: Sequence[Logits], found: Sequence[Logits]) -> LabelledParity:
    """Compares sample by sample."""
    differences = [
        float(np.abs(probabilities(one) - probabilities(other)).max()) if one.shape == other.shape else 1.0
        for one, other in zip(expected, found, strict=True)
    ]
    same = sum(int(one.argmax() == other.argmax()) for one, other in zip(expected, found, strict=True))
    matched = sum(difference < MAX_DIFFERENCE for difference in differences)
    return LabelledParity(len(differences), matched, max(differences), same)
