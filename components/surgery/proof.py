"""The proof that a surgery changed no number: ONNX Runtime runs the graph before and after on the same inputs.

Where a surgery replaced a piece of the graph, the old model is run on random inputs and its *real* activations at the
border of the piece are fed to the new piece. So a difference of one rounding cannot hide behind, or be blown up by, a
sort or a threshold further down. Other surgeries, and those inside the bodies of If, Loop and Scan, are compared by
the outputs of the whole model.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from components.surgery.evaluate import EvaluationError, Model, Piece, Pieces
from components.surgery.feeds import dimensions, feed, inputs_of
from components.surgery.partition.flow import read_by
from components.surgery.surgery import Change
from components.surgery.weights import Weights, is_reference

SEEDS = (0, 1)
_AT_ONCE = 2**30
"""Bytes of activations at the borders of pieces that are held at once, as far as their sizes are known."""
_UNKNOWN_SIZE = 2**18
Values = dict[str, np.ndarray]
Sample = int | Mapping[str, np.ndarray]
"""What a model is run on: the seed of random inputs, or real ones by name."""


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


class Prover:
    """Compares models of one operation, step by step; what it computed of a model it remembers for the next step."""

    def __init__(self, seeds: Sequence[Sample] = SEEDS, weights: Weights | None = None) -> None:
        self.seeds = seeds
        self.weights = weights
        self._model: onnx.ModelProto | None = None
        self._outputs: dict[bytes, Values] = {}
        """Of `_model`, by its inputs."""
        self._new_outputs: dict[bytes, Values] = {}
        self._first: onnx.ModelProto | None = None
        self._first_outputs: dict[bytes, Values] = {}
        """Of the model before everything, which the last one is compared with."""

    def prove(self, before: onnx.ModelProto, after: onnx.ModelProto, changes: Sequence[Change]) -> Proof:
        """Compares two models, piece by piece where the changes name pieces.

        Returns:
            The errors; or why the old model itself, or the part before a piece, does not run, in which case nothing is
            proven or refuted.
        """
        if before is not self._model:
            self._model, self._outputs = before, {}
        self._new_outputs = {}
        errors: dict[int, float] = {}
        words: dict[int, str] = {}
        whole = [position for position, change in enumerate(changes) if not change.outputs]
        cut = [position for position, change in enumerate(changes) if change.outputs]
        unproven = ""
        for compare, positions in ((self._compare_pieces, cut), (self._compare_wholes, whole)):
            try:
                if positions:
                    compare(before, after, changes, positions, errors, words)
            except _DoesNotRunError as error:
                unproven = f"the model before does not run in ONNX Runtime: {error}"
        return Proof(errors, words, unproven)

    def accept(self, after: onnx.ModelProto) -> None:
        """The model after the last proof is the one before the next."""
        if self._first is None:
            self._first, self._first_outputs = self._model, self._outputs
        self._model, self._outputs = after, self._new_outputs

    def whole_difference(self, before: onnx.ModelProto, after: onnx.ModelProto, seed: int = 0) -> dict[str, float]:
        """Error of each output of the whole model on one random input; empty where the old model does not run."""
        try:
            (inputs, old), *_ = self._wholes(before, inputs_of(before, after), [seed])
            new = self._run_new(after, [inputs])[0]
        except (_DoesNotRunError, EvaluationError):
            return {}
        return {name: difference(old[name], new[name], padded=True) for name in old if name in new}

    def _compare_wholes(
        self,
        before: onnx.ModelProto,
        after: onnx.ModelProto,
        changes: Sequence[Change],
        positions: Sequence[int],
        errors: dict[int, float],
        words: dict[int, str],
    ) -> None:
        runs = self._wholes(before, inputs_of(before, after), self.seeds)
        padded = {name for change in changes for name in change.padded}
        names = [output.name for output in before.graph.output]
        try:
            found = self._run_new(after, [inputs for inputs, _ in runs])
        except EvaluationError as error:
            errors.update(dict.fromkeys(positions, np.inf))
            words.update(dict.fromkeys(positions, f"the new graph does not run on the same input: {error}"))
            return
        worst = max(
            (
                difference(old[name], made[name], padded=name in padded) if name in made else np.inf
                for (_, old), made in zip(runs, found, strict=True)
                for name in names
            ),
            default=0.0,
        )
        errors.update(dict.fromkeys(positions, worst))

    def _wholes(
        self, before: onnx.ModelProto, given: Sequence[onnx.ValueInfoProto], seeds: Sequence[Sample]
    ) -> list[tuple[Values, Values]]:
        """Inputs that the model runs on and its outputs, one pair a seed."""
        runs: list[tuple[Values, Values]] = []
        model: Model | None = None
        for seed in seeds:
            last: Exception = EvaluationError("it has no inputs")
            for inputs in _feeds(given, seed):
                key = _key(inputs)
                outputs = self._remembered(before).get(key)
                try:
                    if outputs is None:
                        model = model or Model(before, weights=self.weights)
                        outputs = model(inputs)
                except EvaluationError as error:
                    last = error
                    continue
                if before is self._model:
                    self._outputs[key] = outputs
                runs.append((inputs, outputs))
                break
            else:
                raise _DoesNotRunError(str(last)) from last
        return runs

    def _remembered(self, model: onnx.ModelProto) -> dict[bytes, Values]:
        if model is self._model:
            return self._outputs
        return self._first_outputs if model is self._first else {}

    def _run_new(self, after: onnx.ModelProto, feeds: Sequence[Values]) -> list[Values]:
        if after is self._model and all(_key(inputs) in self._outputs for inputs in feeds):
            return [self._outputs[_key(inputs)] for inputs in feeds]
        model = Model(after, weights=self.weights)
        kept = {value.name for value in after.graph.input}
        found = []
        for inputs in feeds:
            left = {name: value for name, value in inputs.items() if name in kept}
            found.append(model(left))
            self._new_outputs[_key(left)] = found[-1]
        return found

    def _compare_pieces(
        self,
        before: onnx.ModelProto,
        after: onnx.ModelProto,
        changes: Sequence[Change],
        positions: Sequence[int],
        errors: dict[int, float],
        words: dict[int, str],
    ) -> None:
        old, new = Pieces(before, self.weights), Pieces(after, self.weights)
        given = inputs_of(before, after)
        initializers = {tensor.name: tensor for tensor in before.graph.initializer}
        known = {*initializers, *(value.name for value in before.graph.input), *old.names}
        changes = _without_dead_ends(changes, after, new)
        for group in _groups(before, changes, positions):
            border = [name for position in group for name in (*changes[position].inputs, *changes[position].outputs)]
            if unknown := [name for name in border if name not in known]:
                raise AssertionError(f"a surgery names a border that the graph does not have: {unknown[0]!r}")
            values = self._border(old, given, list(dict.fromkeys(border)), initializers)
            self._compare_group(new, changes, group, values, errors, words)

    def _border(
        self,
        old: Pieces,
        given: Sequence[onnx.ValueInfoProto],
        border: Sequence[str],
        initializers: Mapping[str, onnx.TensorProto],
    ) -> list[Values]:
        """What the old model has at the border, one set of values a seed."""
        fed = {value.name for value in given}
        constant = {
            name: self._values(initializers[name]) for name in border if name in initializers and name not in fed
        }
        made = [name for name in border if name not in fed and name not in constant]
        try:
            piece = old.cut(fed, made)
        except EvaluationError as error:
            raise _DoesNotRunError(str(error)) from error
        found = []
        for seed in self.seeds:
            last: Exception = EvaluationError("it has no inputs")
            for inputs in _feeds(given, seed):
                try:
                    values = old.run([piece], [[inputs]])[0][0] if made else {}
                except EvaluationError as error:
                    last = error
                    continue
                found.append({**inputs, **constant, **values})
                break
            else:
                raise _DoesNotRunError(str(last)) from last
        return found

    def _values(self, tensor: onnx.TensorProto) -> np.ndarray:
        if self.weights is not None and is_reference(tensor):
            return self.weights.array(tensor)
        values: np.ndarray = onnx.numpy_helper.to_array(tensor)
        return values

    def _compare_group(
        self,
        new: Pieces,
        changes: Sequence[Change],
        positions: Sequence[int],
        values: Sequence[Values],
        errors: dict[int, float],
        words: dict[int, str],
    ) -> None:
        cuts: list[tuple[int, Piece]] = []
        for position in positions:
            change = changes[position]
            if not any(run[name].size for run in values for name in change.outputs):
                continue
            try:
                cuts.append((position, new.cut(change.inputs, change.outputs)))
            except EvaluationError as error:
                errors[position], words[position] = np.inf, f"the new graph does not run on the same input: {error}"
        try:
            # All in one session; where that fails, each alone, to find which.
            errors.update(_piece_errors(new, changes, cuts, values))
        except EvaluationError:
            for position, piece in cuts:
                try:
                    errors.update(_piece_errors(new, changes, [(position, piece)], values))
                except EvaluationError as error:
                    errors[position], words[position] = np.inf, f"the new graph does not run on the same input: {error}"


class _DoesNotRunError(Exception):
    """The model before cannot be run."""


def _without_dead_ends(changes: Sequence[Change], after: onnx.ModelProto, new: Pieces) -> list[Change]:
    """The changes without outputs that nothing needed, and that have therefore left the graph."""
    there = {*new.names, *(value.name for value in after.graph.input), *(one.name for one in after.graph.initializer)}
    if all(name in there for change in changes for name in change.outputs):
        return list(changes)
    there |= {value.name for value in after.graph.output}
    there |= {name for node in after.graph.node for name in read_by(node)}
    return [replace(change, outputs=tuple(name for name in change.outputs if name in there)) for change in changes]


def _piece_errors(
    new: Pieces, changes: Sequence[Change], cuts: Sequence[tuple[int, Piece]], values: Sequence[Values]
) -> dict[int, float]:
    if not cuts:
        return {}
    feeds = [[{name: run[name] for name in piece.inputs} for _, piece in cuts] for run in values]
    found = new.run([piece for _, piece in cuts], feeds)
    return {
        position: max(
            difference(
                run[name], made[number][name], padded=name in changes[position].padded, span=changes[position].span
            )
            for run, made in zip(values, found, strict=True)
            for name in changes[position].outputs
        )
        for number, (position, _) in enumerate(cuts)
    }


def _groups(before: onnx.ModelProto, changes: Sequence[Change], positions: Sequence[int]) -> Iterator[list[int]]:
    """The changes in groups whose activations fit into memory together."""
    sizes = {value.name: _bytes(value) for value in (*before.graph.value_info, *before.graph.output)}
    group: list[int] = []
    held = 0
    for position in positions:
        change = changes[position]
        size = sum(sizes.get(name, _UNKNOWN_SIZE) for name in {*change.inputs, *change.outputs})
        if group and held + size > _AT_ONCE:
            yield group
            group, held = [], 0
        group.append(position)
        held += size
    if group:
        yield group


def _bytes(value: onnx.ValueInfoProto) -> int:
    sizes = value.type.tensor_type.shape.dim
    if not all(size.HasField("dim_value") for size in sizes):
        return _UNKNOWN_SIZE
    return 4 * math.prod(int(size.dim_value) for size in sizes)


def _feeds(given: Sequence[onnx.ValueInfoProto], seed: Sample) -> Iterator[Values]:
    if isinstance(seed, Mapping):
        yield {value.name: np.asarray(seed[value.name]) for value in given}
        return
    for dimension in dimensions(given):
        try:
            yield feed(given, seed, dimension)
        except EvaluationError as error:
            raise _DoesNotRunError(str(error)) from error


def _key(inputs: Values) -> bytes:
    digest = hashlib.blake2b()
    for name, value in sorted(inputs.items()):
        digest.update(f"{name}{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.digest()


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
