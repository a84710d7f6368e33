"""The proof that a surgery changed no number: ONNX Runtime runs the graph before and after on the same inputs.

Where a surgery replaced a piece of the graph, the old model is run on random inputs and its *real* activations at the
border of the piece are fed to the new piece. So a difference of one rounding cannot hide behind, or be blown up by, a
sort or a threshold further down. Other surgeries are compared by the outputs of the whole model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from components.surgery.evaluate import EvaluationError, Model, run_piece
from components.surgery.feeds import dimensions, feed, inputs_of
from components.surgery.surgery import Change

SEEDS = (0, 1)


@dataclass(frozen=True)
class Proof:
    """What the comparison found."""

    errors: Mapping[int, float] = field(default_factory=dict)
    """Largest relative error of each change, by its position; inf where shapes, integers or not-a-numbers differ.
    A change is missing where the inputs gave it nothing to do, such as no boxes."""
    words: Mapping[int, str] = field(default_factory=dict)
    """Why a change has an infinite error, where it is not the numbers: the new piece does not run."""
    unproven: str = ""
    """Why there was nothing to compare with."""


def prove(
    before: onnx.ModelProto, after: onnx.ModelProto, changes: Sequence[Change], seeds: Sequence[int] = SEEDS
) -> Proof:
    """Compares two models, piece by piece where the changes name pieces.

    Returns:
        The errors; or why the old model itself does not run, in which case nothing is proven or refuted.
    """
    fed = {value.name for value in before.graph.input}
    border = [name for change in changes for name in (*change.inputs, *change.outputs) if name not in fed]
    try:
        old = _model_with_border(before, border)
        given = inputs_of(before, after)
        runs = [_runnable(old, given, seed) for seed in seeds]
    except EvaluationError as error:
        return Proof(unproven=f"the model before does not run in ONNX Runtime: {error}")
    runs = [(inputs, {**inputs, **values}) for inputs, values in runs]
    errors: dict[int, float] = {}
    words: dict[int, str] = {}
    padded = {name for change in changes for name in change.padded}
    whole = [position for position, change in enumerate(changes) if not change.outputs]
    for position, change in enumerate(changes):
        try:
            if change.outputs:
                if any(values[name].size for _, values in runs for name in change.outputs):
                    errors[position] = max(_piece_error(after, change, values) for _, values in runs)
            elif position == whole[0]:
                errors.update(dict.fromkeys(whole, _whole_error(before, after, runs, padded)))
        except EvaluationError as error:
            failed = [position] if change.outputs else whole
            errors.update(dict.fromkeys(failed, np.inf))
            words.update(dict.fromkeys(failed, f"the new graph does not run on the same input: {error}"))
    return Proof(errors, words)


def difference(expected: np.ndarray, found: np.ndarray, *, padded: bool = False, span: float | None = None) -> float:
    """Largest absolute difference over the largest magnitude expected; integers differ by inf or not at all.

    Integers of another width are compared by value.

    Args:
        expected: the old values.
        found: the new values.
        padded: whether `found` may be longer along one axis; then its beginning counts.
        span: full scale that the difference is relative to, if that is larger; then integers are numbers too.
    """
    if padded and expected.ndim == found.ndim:
        found = found[tuple(slice(size) for size in expected.shape)]
    integers = np.issubdtype(expected.dtype, np.integer) and np.issubdtype(found.dtype, np.integer)
    if expected.shape != found.shape or not (expected.dtype == found.dtype or integers):
        return np.inf
    if not np.issubdtype(expected.dtype, np.floating) and not (integers and span is not None):
        return 0.0 if np.array_equal(expected, found) else np.inf
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    if same.all():
        return 0.0
    a, b = expected[~same].astype(np.float64), found[~same].astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.inf
    finite = np.abs(expected[np.isfinite(expected)].astype(np.float64))
    return float(np.abs(a - b).max() / max(float(finite.max(initial=0)), span or 0.0, 1e-12))


def whole_difference(before: onnx.ModelProto, after: onnx.ModelProto, seed: int = 0) -> dict[str, float]:
    """Error of each output of the whole model on one random input; empty where the old model does not run."""
    kept = {value.name for value in after.graph.input}
    try:
        inputs, old = _runnable(Model(before), inputs_of(before, after), seed)
        new = Model(after)({name: value for name, value in inputs.items() if name in kept})
    except EvaluationError:
        return {}
    return {name: difference(old[name], new[name], padded=True) for name in old if name in new}


def _model_with_border(before: onnx.ModelProto, border: Sequence[str]) -> Model:
    try:
        return Model(before, border)
    except EvaluationError as error:
        Model(before)
        raise AssertionError(f"a surgery names a border that the graph does not have: {error}") from error


def _runnable(
    model: Model, given: Sequence[onnx.ValueInfoProto], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    last = EvaluationError("it has no inputs")
    for dimension in dimensions(given):
        inputs = feed(given, seed, dimension)
        try:
            return inputs, model(inputs)
        except EvaluationError as error:
            last = error
    raise last


def _piece_error(after: onnx.ModelProto, change: Change, values: Mapping[str, np.ndarray]) -> float:
    found = run_piece(after, {name: values[name] for name in change.inputs}, change.outputs)
    return max(
        difference(values[name], found[name], padded=name in change.padded, span=change.span) for name in change.outputs
    )


def _whole_error(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    runs: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
    padded: set[str],
) -> float:
    outputs = [output.name for output in before.graph.output]
    kept = {value.name for value in after.graph.input}
    new = Model(after)
    found = [new({name: value for name, value in inputs.items() if name in kept}) for inputs, _ in runs]
    if not set(outputs) <= set(new.outputs):
        return np.inf
    return max(
        difference(old[name], made[name], padded=name in padded)
        for (_, old), made in zip(runs, found, strict=True)
        for name in outputs
    )
