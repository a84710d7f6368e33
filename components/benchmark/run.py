"""The benchmark step: adds a rung's candidates to the board, measured side by side with the baseline."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.benchmark.measure import Entry, Measured, Progress, Track, measure
from components.benchmark.measurement import conditions, write_measurement
from components.benchmark.process import WorkerError
from components.benchmark.rounds import Pace
from components.benchmark.rows import Origin, Sheet, model_file, timing_details, untimed_reason
from components.benchmark.trial import best_setting
from components.core.contracts.job import Job, Runtime, Task
from components.core.contracts.leaderboard import MADE_OF, Leaderboard
from components.core.contracts.search import Entry as SearchEntry
from components.core.contracts.training import TrainingCard
from components.core.contracts.variant import Manifest, Status, Variant
from components.core.errors import StepError, UserError
from components.core.formats import metric_name
from components.core.machine import describe, usable_cores
from components.core.runtimes.interface import availability
from components.core.stepping import announce_board
from components.core.stepping import progress as step_progress
from components.core.tasks.adapter import read_split, task_adapter

BASELINE_RUNG = "baseline"
_CARD_FACTS = {
    "rung",
    "precision",
    "device",
    "steps",
    "wall_seconds",
    "core_seconds",
    "search",
    "step_speedup",
    "memory_ratio",
    "accuracy_before",
    "accuracy_after",
    "lessons",
    "weights_sha256",
}
"""What the rows say of the training; all of it is in the bundle's card."""


@dataclass(frozen=True)
class _Folder:
    """A step's output folder: where it is here, and the URI that others find it by."""

    path: Path
    uri: str
    variants: tuple[Variant, ...]
    input_shape: tuple[int, ...]
    """What they take; a rung may have trained a model of another input size than the user's."""

    @staticmethod
    def read(path: Path, uri: str | None) -> "_Folder":
        manifest = Manifest.read(path)
        return _Folder(path, uri or str(path.resolve()), tuple(manifest.variants), manifest.input_shape)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of an image that they take."""
        return self.input_shape[2:] if len(self.input_shape) == 4 else None


def run_benchmark(
    job: Job,
    bundle: Path,
    exported: Path,
    models: Path | None,
    rung: str,
    board: Leaderboard | None,
    out: Path,
    progress: Progress | None = None,
    *,
    made_of: Path | None = None,
    exported_uri: str | None = None,
    models_uri: str | None = None,
    out_uri: str | None = None,
    made_of_uri: str | None = None,
) -> Leaderboard:
    """Measures variants and returns the board with a row for each.

    Args:
        job: the job: target, budget and the metric of the goal.
        bundle: `fetch`'s folder, with the test split.
        exported: `export`'s folder; its manifest has the baseline and the yardsticks.
        models: folder of a rung's variants; not used by the rung `baseline`.
        rung: `baseline` measures the untouched model, and starts a new board; any other measures `models`.
        board: the board so far; needed unless the rung is `baseline`. Rows on it are kept, not measured again.
        out: gets `measurement.json` with every call that was timed, `detections/` and `logs/`.
        progress: told what is going on; default: the step's own.
        made_of: bundle that the rung's variants were made of. With a training card in it, their ids and techniques say
            what was done to the user's model before.
        exported_uri: URI of `exported`, for the rows; default: its path.
        models_uri: the same of `models`.
        out_uri: the same of `out`.
        made_of_uri: the same of `made_of`; what is published of a row is found by it.

    Raises:
        UserError: the baseline cannot be built from the user's files, or finds nothing on the test split.
        StepError: the baseline cannot be measured, or the board lacks it.
    """
    trained = TrainingCard.find(made_of) if made_of else None
    bench = _Benchmark(
        job=job,
        bundle=bundle,
        exported=_Folder.read(exported, exported_uri),
        models=_of_training(_Folder.read(models, models_uri), trained) if models else None,
        rung=rung,
        out=out,
        out_uri=out_uri or str(out.resolve()),
        progress=progress or step_progress,
        made_of_uri=made_of_uri or (str(made_of.resolve()) if made_of else ""),
    )
    return bench.start_board() if rung == BASELINE_RUNG else bench.extend_board(board)


def _of_training(folder: _Folder, card: TrainingCard | None) -> _Folder:
    """The variants of a model that a rung trained, under ids and techniques of their own."""
    if card is None:
        return folder
    facts = card.model_dump(mode="json", include=_CARD_FACTS, exclude_none=True)
    others: tuple[Variant, ...] = ()
    if card.search:
        facts["search"] = card.search.summary()
        others = tuple(_untrained(card.rung, entry, folder.variants[0].runtime) for entry in card.search.others())
    variants = tuple(
        variant.model_copy(
            update={
                "id": "-".join([*card.made_by, variant.id]),
                "techniques": [*card.made_by, *variant.techniques],
                "details": variant.details | {"training": facts},
            }
        )
        for variant in folder.variants
    )
    return replace(folder, variants=(*variants, *others))


def _untrained(rung: str, entry: SearchEntry, runtime: Runtime) -> Variant:
    """The row of a candidate that a search looked at and did not hand on."""
    status = Status.FAILED if entry.outcome == "failed" else Status.SKIPPED
    return Variant(
        id=f"{rung}-{entry.id}",
        runtime=runtime,
        techniques=[rung, entry.id],
        status=status,
        reason=entry.reason,
        details={"probe": {name: value for name, value in entry.row().items() if value and name != "reason"}},
    )


@dataclass(frozen=True)
class _Benchmark:
    job: Job
    bundle: Path
    exported: _Folder
    models: _Folder | None
    rung: str
    out: Path
    out_uri: str
    progress: Progress
    made_of_uri: str = ""

    def start_board(self) -> Leaderboard:
        """Measures the untouched model: as the user runs it, and in FP32 runtimes as yardsticks."""
        baseline = self.baseline_variant()
        entry = Entry(baseline, self.exported.path, self.job.target.threads or usable_cores())
        tried: dict[str, float] = {}
        try:
            if baseline.runtime == Runtime.TORCH and self.job.target.device == "cpu":
                entry, tried = best_setting(entry, self.track(), self.progress)
            others = [one for one in self.exported.variants if one.id != baseline.id]
            board = Leaderboard(
                job=self.job.name, goal=self.job.goal, baseline=baseline.id, candidates=[], environment=describe()
            )
            return self._measured(board, entry, others, self.exported, tried, None)
        except WorkerError as error:
            raise _baseline_error(baseline, error) from error

    def extend_board(self, board: Leaderboard | None) -> Leaderboard:
        """Measures the rung's variants; baseline and best yardstick run along, their rows stay as they are."""
        if board is None or self.models is None:
            raise StepError(f"rung {self.rung} needs a board and a folder of models; measure the baseline first")
        known = {row.id for row in board.candidates}
        fresh = [variant for variant in self.models.variants if variant.id not in known]
        baseline = self.baseline_variant()
        try:
            row = board.row(board.baseline)
        except KeyError as error:
            raise StepError(f"the board has no row of its baseline {board.baseline!r}") from error
        if row.accuracy is None or baseline.id != board.baseline:
            raise StepError(f"the board's baseline {board.baseline!r} was not measured, or is not {baseline.id!r}")
        passive = bool(row.details.get("timing", {}).get("passive", True))
        entry = Entry(baseline, self.exported.path, row.threads or usable_cores(), passive)
        try:
            return self._measured(board, entry, fresh, self.models, {}, self.yardstick(board))
        except WorkerError as error:
            raise _baseline_error(baseline, error) from error

    def baseline_variant(self) -> Variant:
        """The variant that the speed-ups are over.

        Raises:
            StepError: the manifest has no usable one.
        """
        variants = self.exported.variants
        marked = [one for one in variants if one.details.get("baseline") or one.id == "eager"]
        found = next(iter(marked or variants), None)
        if found is None or found.status != Status.OK:
            reason = found.reason if found else "the manifest is empty"
            raise StepError(f"there is no baseline to measure against: {reason}")
        return found

    def yardstick(self, board: Leaderboard) -> Entry | None:
        """The untouched model in the runtime that was fastest for it, if any was measured."""
        rows = [
            row for row in board.candidates if row.reference and row.speedup is not None and row.id != board.baseline
        ]
        variants = {one.id: one for one in self.exported.variants}
        rows = [row for row in rows if row.id in variants]
        if not rows:
            return None
        best = max(rows, key=lambda row: row.speedup.ratio if row.speedup else 0.0)
        return Entry(variants[best.id], self.exported.path, best.threads or usable_cores())

    def track(self) -> Track:
        """The test split and the pace of the budget."""
        budget, adapter = self.job.budget, task_adapter(self.job, self.bundle)
        return Track(
            adapter=adapter,
            split=read_split(adapter, self.bundle, "test"),
            input_shape=self.job.target.input_shape,
            out=self.out,
            pace=Pace(budget.rounds, budget.round_time, budget.seed),
            job=self.job,
            bundle=self.bundle,
        )

    def _measured(
        self,
        board: Leaderboard,
        baseline: Entry,
        variants: list[Variant],
        folder: _Folder,
        tried: dict[str, float],
        yardstick: Entry | None,
    ) -> Leaderboard:
        """The board with a row for the baseline (if it has none yet) and for every variant."""
        self.out.mkdir(parents=True, exist_ok=True)
        name, metric = baseline.variant.id, self.job.goal.metric
        known = next((row.accuracy for row in board.candidates if row.id == name), None)
        sheet = Sheet(self.rung, metric, [name, *(one.id for one in variants)], known.value if known else None)
        entries = [
            Entry(variant, folder.path, self._threads(variant, baseline), baseline.passive, folder.size)
            for variant in variants
            if not self._untimed(variant, folder, sheet)
        ]

        def add(result: Measured) -> None:
            is_baseline = result.entry is baseline
            if is_baseline:
                _refuse_zero(result.scores[metric], self.job, baseline.variant)
            origin = self._origin(result.entry.variant, self.exported if is_baseline else folder)
            sheet.add_measured(result, origin, self._details(result, tried if is_baseline else {}))
            announce_board(_extended(board, sheet))

        before, results = conditions(), {}
        if entries or not known:
            results = measure(
                baseline,
                entries,
                self.track(),
                self.progress,
                yardstick=yardstick,
                score_baseline=known is None,
                each=add,
            )
        facts = {
            "rung": self.rung,
            "budget": self.job.budget.model_dump(mode="json"),
            "yardstick": yardstick.variant.id if yardstick else None,
            "baseline_p50_ms_by_setting": tried,
        }
        write_measurement(self.out, facts, before, results)
        return _extended(board, sheet)

    def _threads(self, variant: Variant, baseline: Entry) -> int:
        if variant.runtime == baseline.variant.runtime == Runtime.TORCH:
            return baseline.threads
        return self.job.target.threads or usable_cores()

    def _origin(self, variant: Variant, folder: _Folder) -> Origin:
        return Origin(variant, folder.uri, model_file(variant, folder.path, self.job.model, self.bundle))

    def _untimed(self, variant: Variant, folder: _Folder, sheet: Sheet) -> bool:
        """Whether the variant cannot be timed here; its row then says why."""
        origin = self._origin(variant, folder)
        if variant.status != Status.OK:
            sheet.add_untimed(origin)
        elif variant.file and not (folder.path / variant.file).is_file():
            sheet.add_untimed(origin, Status.FAILED, f"its model file {variant.file} is missing")
        elif reason := availability(variant.runtime, self.job.target.device):
            sheet.add_untimed(origin, Status.SKIPPED, untimed_reason(variant, reason))
        else:
            return False
        return True

    def _details(self, result: Measured, tried: dict[str, float]) -> dict[str, Any]:
        if result.failure:
            return {}
        details = timing_details(result, tried)
        if self.made_of_uri:
            details[MADE_OF] = self.made_of_uri
        if result.detections:
            details["detections"] = f"{self.out_uri}/{result.detections.relative_to(self.out).as_posix()}"
        return details


def _extended(board: Leaderboard, sheet: Sheet) -> Leaderboard:
    return board.model_copy(update={"candidates": [*board.candidates, *sheet.in_order()]})


_CHECK = {
    Task.DETECTION: "its labels are the category ids of data.test, and that it takes RGB images in 0..1",
    Task.CLASSIFICATION: "data.labels has the classes in the order of its outputs, and preprocess as in its training",
    Task.TEXT: "data.labels has the classes in the order of its outputs, and the tokenizer is the model's own",
    Task.AUDIO: "data.labels has the classes in the order of its outputs, and preprocess as in its training",
}


def _refuse_zero(value: float, job: Job, baseline: Variant) -> None:
    if value == 0:
        raise UserError(
            f"the model scores 0 {metric_name(job.goal.metric)} on the test split ({baseline.id}), so no drop could be "
            f"seen: check that {_CHECK[job.task]}"
        )


def _baseline_error(baseline: Variant, error: WorkerError) -> Exception:
    if error.user:
        return UserError(str(error))
    return StepError(f"the baseline {baseline.id} could not be measured: {error}")
