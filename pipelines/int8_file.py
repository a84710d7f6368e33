"""INT8 of one ONNX file, calibrated with arrays: placements are tried, timed and judged, and the best is written."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.benchmark.process import WorkerError
from components.benchmark.rounds import Pace
from components.benchmark.stats import rounds_agree
from components.benchmark.tensors import Outputs, Racer, Timed, race
from components.benchmark.worker import peak_rss_bytes
from components.core.contracts.job import Runtime
from components.core.errors import StepError, UserError
from components.core.feeds import Feed, read_feeds
from components.core.machine import cpu_flags, cpu_model, usable_cores
from components.core.precision import has_native_bfloat16
from components.core.runtimes.tensors import load_tensors
from components.core.stepping import progress
from components.int8.accuracy_control import control_accuracy
from components.int8.calibration import CalibrationSet
from components.int8.forms import Form, forms_for
from components.int8.run import Backend
from components.int8.sqnr import sqnr_db

METRICS = ("sqnr", "top1")
_ENGINES = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
_BFLOAT16 = {"INFERENCE_PRECISION_HINT": "bf16"}
_TRIED_WITH = 2
"""Samples that a placement is tried with: how fast it is does not depend on its ranges."""
_ALIKE = 0.03
"""Placements whose times differ by less are as fast as one another: the more accurate one is taken."""
_WINS = 1.03
"""How many times faster than FP32 INT8 must be to be worth anything."""
_HELD_OUT, _FEW = 8, 32
_FP32 = "fp32"


@dataclass(frozen=True)
class Wishes:
    """What the user asks for.

    Args:
        runtimes: where the model may run; the best of all is picked.
        metric: ``sqnr`` (dB against FP32) or ``top1`` (needs labels).
        max_accuracy_drop: of ``top1``, absolute; None: any.
        min_sqnr: dB against FP32; None: any.
        calibration_seconds: for the ranges of the placement that is taken.
        control_seconds: for restoring layers where accuracy is missed.
        rounds: alternating rounds of the timing.
        round_seconds: of one model in a round.
        threads: CPU threads; None: all cores.
        seed: of the bootstrap.
    """

    runtimes: Sequence[Runtime]
    metric: str = "sqnr"
    max_accuracy_drop: float | None = None
    min_sqnr: float | None = None
    calibration_seconds: float = 30.0
    control_seconds: float = 300.0
    rounds: int = 5
    round_seconds: float = 0.2
    threads: int | None = None
    seed: int = 0


@dataclass
class Row:
    """One placement, or FP32, and what became of it."""

    id: str
    runtime: Runtime
    said: str
    options: dict[str, str] = field(default_factory=dict)
    status: str = "ok"
    reason: str = ""
    file: Path | None = None
    p50_ms: float | None = None
    processor_ms: float | None = None
    over_fp32: dict[str, float] | None = None
    sqnr_db: float | None = None
    accuracy: float | None = None
    bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    form: Form | None = None
    speed: float = 0.0
    """By which rows are compared: how many times faster than the baseline."""

    def as_json(self) -> dict[str, Any]:
        """For ``result.json``."""
        told = {name: value for name, value in vars(self).items() if name not in ("form", "speed")}
        return told | {"runtime": str(self.runtime), "file": str(self.file) if self.file else None}


def quantize_file(
    model: Path, calibration: Path, out: Path, wishes: Wishes, final: Callable[[Path], Path] = lambda path: path
) -> dict[str, Any]:
    """Writes the best INT8 form of a model for each kind of runtime, and says how it was found.

    Placements are tried with a few samples and timed against FP32 side by side; the fastest is calibrated with all
    samples, and its accuracy is looked at on samples that were held out. Where it is missed, layers go back to FP32,
    and the next placement is taken where that does not help. FP32 itself is the pick where INT8 does not win.

    Args:
        model: FP32 ONNX file.
        calibration: ``.npz``, see `read_feeds`.
        out: folder for the files that were kept.
        wishes: what is asked for.
        final: where a file in `out` will be at last.

    Returns:
        ``rows``, ``pick``, ``met`` (whether INT8 wins with the accuracy that is asked for), ``calibration``.

    Raises:
        UserError: the model or the arrays do not fit what is asked for.
        StepError: FP32 itself does not run.
    """
    feeds, labels = read_feeds(calibration, model)
    search = _Search(model, calibration, out, wishes, feeds, labels)
    result = search.run()
    for row in (*result["rows"], result["pick"]):
        row["file"] = str(final(Path(row["file"]))) if row["file"] else None
    return result


class _Search:
    def __init__(
        self,
        model: Path,
        calibration: Path,
        out: Path,
        wishes: Wishes,
        feeds: list[Feed],
        labels: npt.NDArray[Any] | None,
    ) -> None:
        if wishes.metric == "top1" and labels is None:
            raise UserError(f"--metric top1: {calibration} has no array `labels`; add one, or take --metric sqnr")
        self.model, self.out, self.wishes = model, out, wishes
        self.arrays = calibration
        held = min(_HELD_OUT, max(len(feeds) // 4, 1))
        self.apart = feeds[-held:]
        """For calibrators, and for the accuracy where there are no labels."""
        self.used = feeds[:-held] if len(feeds) > held else feeds
        self.judged = self.apart if labels is None else feeds
        self.labels = labels
        self.threads = wishes.threads or usable_cores()
        self.warnings = [
            words
            for words, wrong in (
                (f"{len(self.used)} calls to calibrate with; ranges from fewer than {_FEW} are a matter of luck",
                 len(self.used) < _FEW),
                ("one call for everything: accuracy was looked at on what was calibrated on", len(feeds) == 1),
            )
            if wrong
        ]  # fmt: skip
        self.rows: list[Row] = []
        self.exact: Outputs = []
        self.exact_accuracy: float | None = None

    def run(self) -> dict[str, Any]:
        on_cpu = [runtime for runtime in self.wishes.runtimes if runtime not in _ENGINES]
        where = on_cpu[0] if on_cpu else Runtime.ONNXRUNTIME
        call = load_tensors(Runtime.ONNXRUNTIME, self.model, self.threads)
        self.exact = [[np.array(value) for value in call(feed)] for feed in self.judged]
        del call
        if self.labels is not None and self.wishes.metric == "top1":
            self.exact_accuracy = _top1(self.exact, self.labels)
        pick: Row | None = None
        if on_cpu:
            self._try_and_time(on_cpu)
            pick = self._take()
        for runtime in self.wishes.runtimes:
            if runtime in _ENGINES:
                row = self._without_timing(runtime)
                pick = pick or row
        assert pick is not None
        met = pick.form is not None and pick.status == "ok"
        return {
            "model": str(self.model),
            "fp32_runtime": str(where),
            "rows": [row.as_json() for row in self.rows],
            "pick": pick.as_json(),
            "met": met,
            "metric": self.wishes.metric,
            "fp32_accuracy": self.exact_accuracy,
            "calibration": self._card(),
            "machine": {"cpu": cpu_model(), "threads": self.threads},
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def _card(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for feed in self.used:  # one after the other: all in one piece would be the whole set in memory once more
            for value in feed.values():
                digest.update(np.ascontiguousarray(value).data)
        return {
            "calls": len(self.used),
            "held_out": len(self.apart),
            "sha256": digest.hexdigest(),
            "warnings": self.warnings,
        }

    def _set(self, feeds: Sequence[Feed]) -> CalibrationSet:
        names = [str(number) for number in range(len(feeds))]
        return CalibrationSet(list(feeds), names, "", held_out=list(self.apart))

    # -- which placements are fast

    def _try_and_time(self, runtimes: Sequence[Runtime]) -> None:
        bfloat16 = has_native_bfloat16(cpu_flags())
        with tempfile.TemporaryDirectory(prefix="hasten-") as temporary:
            tries = Path(temporary)
            for runtime in runtimes:
                self.rows.append(Row(f"{runtime}-{_FP32}", runtime, "FP32", file=self.model, bytes=_bytes(self.model)))
                if runtime is Runtime.OPENVINO and bfloat16:
                    self.rows.append(replace(self.rows[-1], id=f"{runtime}-bf16", said="BF16", options=_BFLOAT16))
                for form in forms_for(runtime, self.model):
                    self.rows.append(self._try(form, tries))
            self._time(tries, self.rows)
            if bfloat16 and Runtime.OPENVINO in runtimes:
                self._time_in_bfloat16(tries)
        for row in self.rows:
            if row.form is not None:
                row.file = None

    def _try(self, form: Form, tries: Path) -> Row:
        progress(f"trying {form.id}")
        row = Row(form.id, form.runtime, form.said, form=form)
        started = time.monotonic()
        try:
            backend = form.make(self.model, self._set(self.used[:_TRIED_WITH]))
            backend.calibrate(0)
            row.file = tries / form.id / f"model{backend.suffix}"
            backend.write(row.file)
        except Exception as error:  # a placement that a library refuses is a row with its words
            row.status, row.reason = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return row
        row.facts["tried_in_seconds"] = round(time.monotonic() - started, 2)
        return row

    def _time_in_bfloat16(self, folder: Path) -> None:
        """The fastest form of OpenVINO again, with what is left in floating point in bfloat16."""
        forms = [row for row in self.rows if row.form and row.runtime is Runtime.OPENVINO and row.status == "ok"]
        if not forms:
            return
        best = max(forms, key=lambda one: one.speed)
        twin = replace(best, id=f"{best.id}-bf16", said=f"{best.said}; the rest in BF16", options=_BFLOAT16, facts={})
        first, again = self.rows[0], replace(best, facts={})
        self._time(folder, [replace(first, facts={}), again, twin])
        if twin.status == "ok":
            # In the scale of the first race, since only within one race times can be compared.
            twin.speed *= best.speed / again.speed
        self.rows.insert(self.rows.index(best) + 1, twin)

    def _time(self, folder: Path, rows: Sequence[Row]) -> None:
        running = [row for row in rows if row.status == "ok"]
        feeds = folder / "feeds.npz"
        np.savez(feeds, **_stacked(self.apart))  # type: ignore[arg-type]
        racers = [
            Racer(
                row.id,
                {
                    "runtime": str(row.runtime),
                    "file": str(row.file),
                    "options": row.options,
                    "threads": self.threads,
                    "feeds": str(feeds),
                    "model": str(self.model),
                },
            )
            for row in running
        ]
        pace = Pace(self.wishes.rounds, self.wishes.round_seconds, self.wishes.seed)
        try:
            timed = race(racers, folder, self.threads, pace, progress)
        except WorkerError as error:
            raise StepError(f"FP32 does not run in {running[0].runtime}: {error}") from error
        first = timed[running[0].id]
        exact = first.outputs
        shaky = [one for one in timed.values() if not one.failure and not _agree(one, first)]
        by_processor = bool(shaky)
        for row in running:
            one = timed[row.id]
            if one.failure or one.latency is None or one.processor is None:
                row.status, row.reason = "failed", one.failure
                continue
            row.p50_ms, row.processor_ms = round(one.latency.p50, 3), round(one.processor.p50, 3)
            ratio = one.over(first, processor=by_processor, seed=self.wishes.seed)
            row.speed = ratio.ratio
            row.over_fp32 = {"ratio": ratio.ratio, "ci_low": ratio.ci_low, "ci_high": ratio.ci_high}
            row.facts["compared_by"] = "processor time, since the rounds disagreed" if by_processor else "time"
            row.sqnr_db = round(sqnr_db(exact, one.outputs), 2)
        # Over the fastest untouched model, whichever runtime it is in.
        best = max(row.speed for row in running if row.status == "ok" and row.said == "FP32")
        for row in running:
            row.speed /= best

    # -- which of them is accurate

    def _take(self) -> Row:
        left = [row for row in self.rows if row.status == "ok" and (row.form is not None or row.id.endswith("-bf16"))]
        slow = [row for row in left if row.speed < _WINS]
        for row in slow:
            row.status, row.reason = "rejected", f"{row.speed:.2f}x the fastest FP32: it does not win"
        left = [row for row in left if row not in slow]
        while left:
            fastest = max(row.speed for row in left)
            alike = [row for row in left if row.speed >= fastest * (1 - _ALIKE)]
            row = max(alike, key=lambda one: one.sqnr_db or 0.0)
            left.remove(row)
            if self._good(row):
                for other in left:
                    other.status = "rejected"
                    other.reason = f"{other.speed:.2f}x the fastest FP32, {row.id} {row.speed:.2f}x" + (
                        f" with {row.sqnr_db} dB against {other.sqnr_db}" if other in alike else ""
                    )
                return row
        untouched = [row for row in self.rows if row.said == "FP32" and row.status == "ok"]
        return max(untouched, key=lambda one: one.speed)

    def _good(self, row: Row) -> bool:
        """Calibrates with everything, and says whether the accuracy is what is asked for."""
        if row.form is None:
            return self._judge(row, row.file)
        backend = self._calibrated(row)
        if backend is None:
            return False
        file = self.out / row.id / f"model{backend.suffix}"
        row.facts |= backend.write(file)
        row.file, row.bytes = file, _bytes(file)
        return self._judge(row, file) or self._restore(row, backend, file)

    def _calibrated(self, row: Row) -> Backend | None:
        assert row.form is not None
        started = time.monotonic()
        try:
            backend = row.form.make(self.model, self._set(self.used))
            row.facts["calibrator"] = backend.calibrate(self.wishes.calibration_seconds)
        except Exception as error:
            row.status, row.reason = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return None
        row.facts["calibrated_in_seconds"] = round(time.monotonic() - started, 2)
        return backend

    def _judge(self, row: Row, file: Path | None) -> bool:
        assert file is not None
        row.sqnr_db, row.accuracy = self._measure(row, file)
        short = self._short(row.sqnr_db, row.accuracy)
        if short:
            row.status, row.reason = "rejected", short
        return not short

    def _measure(self, row: Row, file: Path) -> tuple[float, float | None]:
        """SQNR and, where there are labels, accuracy."""
        where = Runtime.ONNXRUNTIME if row.runtime in _ENGINES else row.runtime
        call = load_tensors(where, file, self.threads, row.options)
        found = [[np.array(value) for value in call(feed)] for feed in self.judged]
        accuracy = _top1(found, self.labels) if self.exact_accuracy is not None and self.labels is not None else None
        return round(sqnr_db(self.exact, found), 2), accuracy

    def _short(self, sqnr: float, accuracy: float | None) -> str:
        """Why the accuracy is not what is asked for; empty where it is."""
        if self.wishes.min_sqnr is not None and sqnr < self.wishes.min_sqnr:
            return f"SQNR {sqnr:.1f} dB, asked for are {self.wishes.min_sqnr:g}"
        limit = self.wishes.max_accuracy_drop
        if accuracy is not None and self.exact_accuracy is not None and limit is not None:
            drop = self.exact_accuracy - accuracy
            if drop > limit + 1e-9:
                return f"top1 {accuracy:.4f} against {self.exact_accuracy:.4f}: the drop {drop:.4f} is over {limit:g}"
        return ""

    def _restore(self, row: Row, backend: Backend, file: Path) -> bool:
        """Puts the fewest layers back that bring the accuracy; the row is then what it was restored to."""
        ranking = backend.rank(0.3 * self.wishes.control_seconds)
        if not ranking:
            return False
        top1 = self.exact_accuracy is not None and self.wishes.max_accuracy_drop is not None
        wanted = self.wishes.min_sqnr

        def value(sqnr: float, accuracy: float | None) -> float:
            return accuracy if top1 and accuracy is not None else min(sqnr, wanted or sqnr)

        def measure(restored: Any) -> float:
            backend.write(file, restored)
            return value(*self._measure(row, file))

        exact = self.exact_accuracy if top1 and self.exact_accuracy is not None else wanted or 0.0
        allowed = (self.wishes.max_accuracy_drop or 0.0) if top1 else 0.0
        before = value(row.sqnr_db or 0.0, row.accuracy)
        found = control_accuracy(ranking, measure, exact, before, allowed, 0.7 * self.wishes.control_seconds)
        backend.write(file, [one.unit for one in found.restored])
        row.facts["restored"] = [one.unit for one in found.restored]
        row.bytes = _bytes(file)
        row.status, row.reason = "ok", ""
        if not self._judge(row, file):
            row.reason += f", with {len(found.restored)} layers restored"
            return False
        row.reason = f"{len(found.restored)} layers restored: {', '.join(row.facts['restored'][:5])}"
        return True

    def _without_timing(self, runtime: Runtime) -> Row:
        """TensorRT's form: engines need a GPU, so nothing is timed."""
        (form,) = forms_for(runtime, self.model)
        row = Row(form.id, form.runtime, form.said, form=form)
        self.rows.append(row)
        if self._good(row):
            row.reason = "; ".join(filter(None, [row.reason, "not timed: build an engine and time it on a GPU"]))
        elif row.status == "failed":
            raise StepError(f"INT8 for {runtime}: {row.reason}")
        return row


def _agree(one: Timed, first: Timed) -> bool:
    if one is first:
        return True
    shared = sorted(one.rounds.keys() & first.rounds.keys())
    ratios = [np.median(first.rounds[n].end_to_end) / np.median(one.rounds[n].end_to_end) for n in shared]
    return rounds_agree(ratios, one.over(first, processor=False))


def _stacked(feeds: Sequence[Feed]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _top1(outputs: Outputs, labels: npt.NDArray[Any]) -> float:
    scores = np.concatenate([one[0].reshape(len(one[0]), -1) for one in outputs])
    if len(scores) != len(labels):
        raise UserError(f"--metric top1: {len(labels)} labels for outputs of {len(scores)} samples")
    return float((scores.argmax(axis=1) == labels).mean())


def _bytes(file: Path) -> int:
    """The model's file and the weights beside it."""
    kinds = (file.suffix, ".bin", ".data")
    return sum(one.stat().st_size for one in file.parent.glob(f"{file.stem}.*") if one.suffix in kinds)
