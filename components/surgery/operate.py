"""Operates on one model: finds the patterns of the table, replaces them, proves each, takes back what fails."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import onnx
import onnx_graphsurgeon as gs

from components.core.contracts.job import Runtime
from components.core.errors import UserError
from components.surgery.graphs import to_graph, to_model
from components.surgery.proof import SEEDS, Proof, prove, whole_difference
from components.surgery.registry import SURGERIES
from components.surgery.report import Record, SurgeryReport
from components.surgery.surgery import Change, Options, Outcome, Surgery

_MAX_SWEEPS = 8
"""One surgery uncovers work for another (a folded branch uncovers constants); more were never needed."""
_MAX_NMS_ROUNDS = 256


def operate(
    model: onnx.ModelProto,
    target: Runtime,
    only: Collection[int] | None = None,
    skip: Collection[int] = (),
    options: Options | None = None,
    seeds: Sequence[int] = SEEDS,
) -> tuple[onnx.ModelProto, SurgeryReport]:
    """Makes a model fit for its runtime without changing what it computes.

    Args:
        model: any ONNX model; it is not changed.
        target: runtime that it shall run on.
        only: rows to apply; default: all that the target needs. Row 0 is constant folding.
        skip: rows to leave out.
        options: choices that the graph does not decide.
        seeds: of the random inputs that ONNX Runtime compares the model before and after on.

    Returns:
        The new model, or the given one itself where no pattern was found, and the report.

    Raises:
        UserError: the graph is damaged in a way that loading does not find.
    """
    started = time.monotonic()
    surgeries = [
        surgery
        for surgery in SURGERIES
        if target in surgery.targets and surgery.row not in skip and (only is None or surgery.row in only)
    ]
    theatre = _Theatre(model, options or Options(), seeds)
    for _ in range(_MAX_SWEEPS):
        changed = [theatre.perform(surgery) for surgery in surgeries]
        if not any(changed):
            break
    end_to_end = whole_difference(model, theatre.model) if theatre.model is not model else {}
    report = SurgeryReport(
        target=target,
        records=list(theatre.records.values()),
        nodes_before=len(model.graph.node),
        nodes_after=len(theatre.model.graph.node),
        seconds=time.monotonic() - started,
        end_to_end=end_to_end,
    )
    return theatre.model, report


@dataclass
class _Theatre:
    """The model on the table, and the records so far."""

    model: onnx.ModelProto
    options: Options
    seeds: Sequence[int]
    records: dict[tuple[int, str, str], Record] = field(default_factory=dict)
    abandoned: set[int] = field(default_factory=set)
    _untouched: set[int] = field(default_factory=set)
    """Rows that found nothing to do since the model last changed."""
    _graph: gs.Graph | None = None
    """Of the model as it is; only looked at."""

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
        if self._graph is None:
            self._graph = _read(self.model)
        if not self._matches(surgery):
            self._untouched.add(surgery.row)
            return False
        changed = self._apply(surgery)
        self._graph = None if changed else self._graph
        self._untouched = set() if changed else self._untouched | {surgery.row}
        return changed

    def _matches(self, surgery: Surgery) -> bool:
        try:
            return surgery.matches(self._graph)
        except Exception as error:
            self._record_failure(surgery, error)
            return False

    def _record_failure(self, surgery: Surgery, error: Exception) -> None:
        """A graph that no exporter writes, or a mistake of ours: it costs this surgery and not the run."""
        words = f"the surgery failed on this graph: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        change = Change("whole graph", words, "report it with the model", outcome=Outcome.REFUSED)
        self._record(surgery, [change], {}, "")

    def _apply(self, surgery: Surgery) -> bool:
        options = self.options
        while True:
            graph = _read(self.model)
            try:
                changes = list(surgery.apply(graph, options))
                done = [change for change in changes if change.outcome is Outcome.DONE]
                if not done:
                    self._record(surgery, changes, {}, "")
                    return False
                after = to_model(graph, self.model)
                proof = prove(self.model, after, done, self.seeds)
            except Exception as error:
                self._record_failure(surgery, error)
                return False
            wrong = [
                change for position, change in enumerate(done) if proof.errors.get(position, 0.0) > change.tolerance
            ]
            if not wrong:
                self.model = after
                self._record(surgery, changes, _errors(done, proof), proof.unproven)
                return True
            if surgery.row == 12 and options.nms_rounds < _MAX_NMS_ROUNDS:
                # The one cause known of a wrong NMS: a chain of suppressions longer than its rounds.
                options = replace(options, nms_rounds=2 * options.nms_rounds)
                continue
            words = next(iter(proof.words.values()), "the numbers moved beyond the tolerance")
            taken_back = [replace(change, outcome=Outcome.ROLLED_BACK) for change in wrong]
            self._record(surgery, taken_back, _errors(done, proof), f"taken back: {words}")
            if any(not change.outputs for change in wrong):
                self.abandoned.add(surgery.row)
                return False
            options = replace(options, skip=options.skip | {change.node for change in wrong})
            self.options = replace(self.options, skip=options.skip)

    def _record(self, surgery: Surgery, changes: Sequence[Change], errors: dict[str, float], note: str) -> None:
        for change in changes:
            key = (surgery.row, change.node, f"{change.outcome}{change.what}")
            self.records[key] = Record(
                row=surgery.row,
                surgery=surgery.name,
                node=change.node,
                why=change.why,
                what=change.what,
                outcome=change.outcome,
                max_error=errors.get(change.node),
                note=note if change.outcome is not Outcome.REFUSED else "",
            )


def _read(model: onnx.ModelProto) -> gs.Graph:
    try:
        return to_graph(model)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"the ONNX graph cannot be read: {type(error).__name__}: {words}; export it again") from error


def _errors(done: Sequence[Change], proof: Proof) -> dict[str, float]:
    return {change.node: proof.errors[position] for position, change in enumerate(done) if position in proof.errors}
