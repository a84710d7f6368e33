"""Accuracy control: restores the fewest layers to floating point with which the accuracy is within the goal.

The order comes from `sensitivity` (cheap, no labels), the decision from accuracy on labelled images that are not the
test split's.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.core.stepping import progress
from components.int8.sensitivity import Blame

Measure = Callable[[Collection[str]], float]
"""Accuracy (0..1) of the model with these nodes in floating point."""


@dataclass(frozen=True)
class Restored:
    """A node that left INT8."""

    unit: str
    sqnr_db: float
    """Of the heads with only this node quantized."""
    accuracy_without: float | None
    """Accuracy with all the other restorations and not this one; None: not tried for want of time."""


@dataclass
class Control:
    """What accuracy control did."""

    fp32: float
    int8: float
    wanted: float
    """Smallest accuracy that is aimed at."""
    reached: float
    restored: list[Restored] = field(default_factory=list)
    trials: list[tuple[int, float]] = field(default_factory=list)
    """How many nodes were restored and what accuracy that gave, in the order of trying."""
    note: str = ""

    @property
    def recovered(self) -> bool:
        """Whether the result is what was aimed at."""
        return self.reached >= self.wanted

    def card(self) -> dict[str, Any]:
        """For the report."""
        return {
            "fp32": round(self.fp32, 5),
            "int8": round(self.int8, 5),
            "wanted": round(self.wanted, 5),
            "reached": round(self.reached, 5),
            "restored": [
                {
                    "layer": one.unit,
                    "sqnr_db": one.sqnr_db,
                    "accuracy_without": None if one.accuracy_without is None else round(one.accuracy_without, 5),
                    "brought_back": None
                    if one.accuracy_without is None
                    else round(self.reached - one.accuracy_without, 5),
                }
                for one in self.restored
            ],
            "trials": [{"restored": count, "accuracy": round(accuracy, 5)} for count, accuracy in self.trials],
            "note": self.note,
        }


def control_accuracy(
    ranking: Sequence[Blame], measure: Measure, fp32: float, int8: float, max_drop: float, seconds: float
) -> Control:
    """Restores as few of the ranked nodes as bring the accuracy back.

    Doubles the number of restored nodes until the goal is met, halves the gap to the last number that missed it, then
    tries to do without each restored node but the last, the least harmful first.

    Args:
        ranking: the quantized nodes, the most harmful first.
        measure: accuracy of a model with given nodes restored.
        fp32: accuracy of the FP32 model on the same images.
        int8: accuracy with nothing restored.
        max_drop: absolute, 0..1.
        seconds: no trial begins after this time.

    Returns:
        What was restored. Where time or nodes end first, the best that was found, with `recovered` False.
    """
    found = Control(fp32, int8, fp32 - max_drop, int8)
    if found.recovered or not ranking:
        return found
    deadline = time.monotonic() + seconds
    units = [blame.unit for blame in ranking]
    results: dict[int, float] = {0: int8}

    def try_first(count: int) -> bool:
        progress(f"accuracy control: {count} of {len(units)} layers restored")
        results[count] = measure(units[:count])
        found.trials.append((count, results[count]))
        return results[count] >= found.wanted

    failed, passed, count = 0, 0, 1
    while time.monotonic() < deadline:
        if try_first(count):
            passed = count
            break
        failed = count
        if count == len(units):
            break
        count = min(2 * count, len(units))
    while passed - failed > 1 and time.monotonic() < deadline:
        middle = (passed + failed) // 2
        passed, failed = (middle, failed) if try_first(middle) else (passed, middle)
    if not passed:
        best = max(results, key=lambda number: (results[number], -number))
        found.reached = results[best]
        found.restored = [Restored(blame.unit, blame.sqnr_db, None) for blame in ranking[:best]]
        found.note = (
            f"the goal is missed even with all {len(units)} layers restored"
            if failed == len(units)
            else f"time ended after {len(found.trials)} trials; give a larger budget.control_time"
        )
        return found
    found.reached = results[passed]
    _prune(found, list(ranking[:passed]), measure, deadline)
    return found


def _prune(found: Control, kept: list[Blame], measure: Measure, deadline: float) -> None:
    """Puts nodes back into INT8 that the accuracy does not need, and notes what each of the others brings."""
    without: dict[str, float] = {kept[0].unit: found.int8} if len(kept) == 1 else {}
    for blame in reversed(list(kept)):
        if len(kept) == 1 or time.monotonic() >= deadline:
            break
        rest = [one for one in kept if one is not blame]
        progress(f"accuracy control: doing without {blame.unit}")
        accuracy = measure([one.unit for one in rest])
        found.trials.append((len(rest), accuracy))
        if accuracy >= found.wanted:
            kept, found.reached = rest, accuracy
        else:
            without[blame.unit] = accuracy
    found.restored = [Restored(one.unit, one.sqnr_db, without.get(one.unit)) for one in kept]
