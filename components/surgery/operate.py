"""Operates on one model: finds the patterns of the table, replaces them, proves each, takes back what fails."""

import contextlib
import gc
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import onnx
import onnx_graphsurgeon as gs

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.surgery.graphs import infer_shapes, to_model, with_shapes
from components.surgery.plain_form import plain_form
from components.surgery.proof import SEEDS, Prover, Sample
from components.surgery.registry import SURGERIES
from components.surgery.report import Record, SurgeryReport
from components.surgery.sorting import bodies
from components.surgery.surgery import WHOLE_GRAPH, Change, Options, Outcome, Surgery, label
from components.surgery.weights import Weights, restore, set_aside

_MAX_SWEEPS = 8
"""One surgery uncovers work for another (a folded branch uncovers constants); more were never needed."""
_MAX_NMS_ROUNDS = 256
_FOLDING = 0
_VERSIONS = 41
_MAX_FOLDS = 32
"""Each makes more shapes known, and so more to fold."""


def operate(
    model: onnx.ModelProto,
    target: Runtime,
    only: Collection[int] | None = None,
    skip: Collection[int] = (),
    options: Options | None = None,
    seeds: Sequence[Sample] = SEEDS,
) -> tuple[onnx.ModelProto, SurgeryReport]:
    """Makes a model fit for its runtime without changing what it computes.

    Args:
        model: any ONNX model; it is not changed.
        target: runtime that it shall run on.
        only: rows to apply; default: all that the target needs. Row 0 is constant folding.
        skip: rows to leave out.
        options: choices that the graph does not decide.
        seeds: of the random inputs that ONNX Runtime compares the model before and after on; or real inputs by name.

    Returns:
        The new model, or the given one itself where no pattern was found, and the report.

    Raises:
        UserError: the graph is damaged in a way that loading does not find.
    """
    skeleton, weights = set_aside(model)
    operated, report = operate_apart(skeleton, weights, target, only, skip, options, seeds)
    return (model if operated is skeleton else restore(operated, weights)), report


def operate_apart(
    skeleton: onnx.ModelProto,
    weights: Weights,
    target: Runtime,
    only: Collection[int] | None = None,
    skip: Collection[int] = (),
    options: Options | None = None,
    seeds: Sequence[Sample] = SEEDS,
) -> tuple[onnx.ModelProto, SurgeryReport]:
    """`operate` for a model whose weights stay apart, so that a large one is never copied.

    Args:
        skeleton: of `weights.set_aside`; it is not changed.
        weights: its store; gets the weights that surgeries make.
        target: as of `operate`, and so the others.
        only: rows to apply.
        skip: rows to leave out.
        options: choices that the graph does not decide.
        seeds: of the random inputs.

    Returns:
        The new skeleton, or the given one itself where no pattern was found, and the report.

    Raises:
        UserError: as of `operate`.
    """
    started = time.monotonic()
    surgeries = [
        surgery
        for surgery in SURGERIES
        if target in surgery.targets and surgery.row not in skip and (only is None or surgery.row in only)
    ]
    plain, prepared = plain_form(skeleton) if any(surgery.row == _VERSIONS for surgery in surgeries) else (skeleton, [])
    # Shapes are inferred once for each change; those that came with the model may be wrong.
    original = infer_shapes(plain)
    theatre = _Theatre(original, weights, replace(options or Options(), target=target), Prover(seeds, weights))
    theatre.prepare(prepared)
    with _collecting_by_hand():
        for _ in range(_MAX_SWEEPS):
            changed = [theatre.perform(surgery) for surgery in surgeries]
            gc.collect()
            if not any(changed):
                break
    untouched = theatre.model is original and not prepared
    report = SurgeryReport(
        target=target,
        records=list(theatre.records.values()),
        nodes_before=len(skeleton.graph.node),
        nodes_after=len(theatre.model.graph.node),
        end_to_end={} if untouched else theatre.prover.whole_difference(original, theatre.model),
        seconds=time.monotonic() - started,
    )
    return (skeleton if untouched else theatre.model), report


@contextlib.contextmanager
def _collecting_by_hand() -> Iterator[None]:
    """Graphs are many small objects in cycles: left to itself, the collector goes through all of them all the time.

    What was there before is none of its business, so that a large process does not pay for it.
    """
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class _Found:
    """A change and where it is."""

    change: Change
    """As the proof sees it: what is in a body has no border that could be fed."""
    asked: str
    """What the surgery called the node, which `Options.skip` goes by."""
    body: str = ""
    """The body that it is in, in words; empty: in the graph itself."""


class _BodyError(Exception):
    """A surgery changed how many inputs or outputs a body has, which the node around it cannot follow."""

    def __init__(self, found: Sequence[_Found]) -> None:
        super().__init__(f"it would change the number of outputs of the {found[0].body}" if found else "")
        self.found = found


@dataclass
class _Theatre:
    """The model on the table, and the records so far."""

    model: onnx.ModelProto
    weights: Weights
    options: Options
    prover: Prover
    records: dict[tuple[int, str, str], Record] = field(default_factory=dict)
    abandoned: set[int] = field(default_factory=set)
    _untouched: set[int] = field(default_factory=set)
    """Rows that found nothing to do since the model last changed."""
    _graph: gs.Graph | None = None
    """Of the model as it is; None after something was tried on it."""
    _bodies: list[gs.Graph] = field(default_factory=list)
    """Those in it."""

    def prepare(self, changes: Sequence[Change]) -> None:
        """Records what was done to the model before it came here."""
        for surgery in SURGERIES:
            if surgery.row == _VERSIONS:
                self._record(surgery, changes, {}, "only the way in which it is written changes")

    def perform(self, surgery: Surgery) -> bool:
        """Applies one surgery everywhere it matches; whether the model changed."""
        if surgery.row in self._untouched or surgery.row in self.abandoned:
            return False
        # What was refused before may be possible now, or be gone.
        self.records = {
            key: record
            for key, record in self.records.items()
            if record.row != surgery.row or record.outcome is not Outcome.REFUSED
        }
        if not self._matches(surgery):
            self._untouched.add(surgery.row)
            return False
        changed = self._apply(surgery)
        self._untouched = set() if changed else self._untouched | {surgery.row}
        return changed

    def _read(self) -> gs.Graph:
        if self._graph is None:
            try:
                self._graph = with_shapes(self.model, self.weights)
                self._bodies = [body for body, _ in _bodies_of(self._graph)]
            except Exception as error:
                words = " ".join(str(error).split())[:200]
                reason = f"the ONNX graph cannot be read: {type(error).__name__}: {words}; export it again"
                raise UserError(reason) from error
        return self._graph

    def _matches(self, surgery: Surgery) -> bool:
        graph = self._read()
        try:
            return surgery.matches(graph) or any(surgery.matches(body) for body in self._bodies)
        except Exception as error:
            self._record_failure(surgery, error)
            return False

    def _record_failure(self, surgery: Surgery, error: Exception) -> None:
        """A graph that no exporter writes, or a mistake of ours: it costs this surgery and not the run."""
        words = f"the surgery failed on this graph: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        change = Change(WHOLE_GRAPH, words, "report it with the model", outcome=Outcome.REFUSED)
        self._record(surgery, [change], {}, "")

    def _apply(self, surgery: Surgery) -> bool:
        options = self.options
        impossible: list[Change] = []
        while True:
            graph = self._read()
            self._graph = None
            try:
                found, after, fresh = self._operated(surgery, graph, options)
                done = [each for each in found if each.change.outcome is Outcome.DONE]
                changes = [*impossible, *(each.change for each in found)]
                if not done:
                    self._record(surgery, changes, {}, "")
                    return False
                proof = self.prover.prove(self.model, after, [each.change for each in done])
            except _BodyError as error:
                skip = options.skip | {each.asked for each in error.found}
                if skip == options.skip:
                    self._record_failure(surgery, error)
                    return False
                impossible += [_refused(each.change, str(error)) for each in error.found]
                options = replace(options, skip=skip)
                continue
            except Exception as error:
                self._record_failure(surgery, error)
                return False
            errors = {done[position].change.node: value for position, value in proof.errors.items()}
            wrong = [
                each for position, each in enumerate(done) if proof.errors.get(position, 0.0) > each.change.tolerance
            ]
            if not wrong:
                self.model, self._graph = after, fresh
                self._bodies = [] if fresh is None else [body for body, _ in _bodies_of(fresh)]
                self.prover.accept(after)
                self.weights.keep(after)
                self._record(surgery, changes, errors, proof.unproven)
                return True
            if surgery.row == 12 and options.nms_rounds < _MAX_NMS_ROUNDS:
                # The one cause known of a wrong NMS: a chain of suppressions longer than its rounds.
                options = replace(options, nms_rounds=2 * options.nms_rounds)
                continue
            # What is in bodies shares one error with what the whole model is compared for: it goes first.
            culprits = [each for each in wrong if each.change.outputs or each.body] or wrong
            words = next(iter(proof.words.values()), "the numbers moved beyond the tolerance")
            taken_back = [replace(each.change, outcome=Outcome.ROLLED_BACK) for each in culprits]
            self._record(surgery, taken_back, errors, f"taken back: {words}")
            skip = options.skip | {each.asked for each in culprits}
            if skip == options.skip or not any(each.change.outputs or each.body for each in culprits):
                self.abandoned.add(surgery.row)
                return False
            options = replace(options, skip=skip)
            self.options = replace(self.options, skip=skip)

    def _operated(
        self, surgery: Surgery, graph: gs.Graph, options: Options
    ) -> tuple[list[_Found], onnx.ModelProto, gs.Graph | None]:
        """What a surgery found, the model after it, and that model as a graph if it was needed.

        Folding goes on to its end, before the surgeries after it see what is left: the data-dependent operators need
        all shapes, and RoiAlign would be replaced in its general form before its number of boxes has become fixed.
        """
        found: list[_Found] = []
        model, more = self.model, _everywhere(surgery, graph, options)
        for _ in range(_MAX_FOLDS):
            found += more
            if not any(each.change.outcome is Outcome.DONE for each in more):
                break
            model = to_model(graph, self.model, self.weights)
            if surgery.row != _FOLDING:
                return found, model, None
            graph = with_shapes(model, self.weights)
            more = _everywhere(surgery, graph, options)
        return found, model, None if more else graph

    def _record(self, surgery: Surgery, changes: Sequence[Change], errors: dict[str, float], note: str) -> None:
        for change in changes:
            key = (surgery.row, change.node, f"{change.outcome}{change.what}")
            proven = change.outcome is Outcome.DONE and change.node in errors
            self.records[key] = Record(
                row=surgery.row,
                surgery=surgery.name,
                node=change.node,
                why=change.why,
                what=change.what,
                outcome=change.outcome,
                max_error=errors.get(change.node),
                note="" if proven or change.outcome is Outcome.REFUSED else note,
            )


def _everywhere(surgery: Surgery, graph: gs.Graph, options: Options) -> list[_Found]:
    """Applies a surgery to the graph and to the bodies of its nodes, and of theirs."""
    found = []
    if surgery.matches(graph):
        found = [_Found(change, change.node) for change in surgery.apply(graph, options)]
    for body, where in _bodies_of(graph):
        if not surgery.matches(body):
            continue
        arity = len(body.inputs), len(body.outputs)
        changes = [_in_body(change, where) for change in surgery.apply(body, options)]
        if (len(body.inputs), len(body.outputs)) != arity:
            raise _BodyError([each for each in changes if each.change.outcome is Outcome.DONE])
        found += changes
    return found


def _in_body(change: Change, where: str) -> _Found:
    node = where if change.node == WHOLE_GRAPH else change.node
    return _Found(replace(change, node=node, inputs=(), outputs=()), change.node, where)


def _bodies_of(graph: gs.Graph) -> Iterator[tuple[gs.Graph, str]]:
    """The bodies in a graph, outer ones first, and what to call them."""
    waiting = [graph]
    while waiting:
        for node in waiting.pop().nodes:
            for attribute, body in bodies(node):
                yield body, f"{attribute.replace('_', ' ')} of {label(node)}"
                waiting.append(body)


def _refused(change: Change, why: str) -> Change:
    way_out = "make the number of rows independent of the data inside of the loop or branch"
    return replace(change, outcome=Outcome.REFUSED, why=why, what=way_out)
