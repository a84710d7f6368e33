"""Step times of real runs, as what one model asks of a cluster."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from components.core.contracts.job import Rung
from components.core.contracts.leaderboard import Leaderboard
from components.core.errors import UserError
from pipelines.local.record import RECORD, RunRecord, Stage, StepRecord
from pipelines.local.state import COMPRESSIONS
from pipelines.scheduling import CPU, GPU_INFER, GPU_TRAIN, LIGHT, Profile

TRAINING = frozenset(str(rung) for rung in Rung) - set(COMPRESSIONS)
ON_GPU = frozenset({"engine", "benchmark"}) | TRAINING
"""Steps that get a GPU on a cluster; a test holds this against the compiled pipeline."""
_ON_CPU = frozenset({"export", "surgery", *COMPRESSIONS})


@dataclass(frozen=True)
class Work:
    """One step of one model: a pod on a cluster."""

    rung: str
    """Empty before the first rung and after the last."""
    step: str
    seconds: float

    @property
    def on_gpu(self) -> bool:
        """Whether it takes a GPU."""
        return self.step in ON_GPU

    @property
    def profile(self) -> Profile:
        """What it asks for, and how often it is tried again."""
        if self.step in TRAINING:
            return GPU_TRAIN
        if self.on_gpu:
            return GPU_INFER
        return CPU if self.step in _ON_CPU else LIGHT


@dataclass(frozen=True)
class MeasuredRun:
    """What a run took, step by step."""

    name: str
    before: tuple[Work, ...]
    climbs: dict[str, tuple[Work, ...]]
    """By rung, in the order of the ladder; only rungs that were climbed."""
    after: tuple[Work, ...]
    met_at: str | None
    """The first rung that met the goal; None if none did."""

    def work(self, exhaustive: bool, met_at: str | None) -> list[Work]:
        """What a model asks for that meets its goal at a rung, or at none."""
        rungs = list(self.climbs)
        if not exhaustive and met_at is not None:
            rungs = rungs[: rungs.index(met_at) + 1]
        return [*self.before, *(work for rung in rungs for work in self.climbs[rung]), *self.after]


def read_runs(paths: Sequence[Path]) -> list[MeasuredRun]:
    """The runs of `run.json` files, or of the folders that they are in; the leaderboard is beside them.

    Raises:
        UserError: a file is none, or its times are not those of a whole run.
    """
    return [_read(path / RECORD if path.is_dir() else path) for path in paths]


def _read(path: Path) -> MeasuredRun:
    try:
        record = RunRecord.model_validate(json.loads(path.read_bytes()))
        board = Leaderboard.model_validate_json((path.parent / "leaderboard.json").read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: there is no such file; give the run.json of a finished `hasten run`"
        ) from error
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{path}: it, or the leaderboard.json beside it, is none of hasten's; run again") from error
    if record.stage is not Stage.FINISHED:
        raise UserError(f"{path}: the run is {record.stage}, not finished; its times are not those of a whole run")
    taken = {step.step for step in record.steps if step.state == "done"}
    unknown = sorted({step.step for step in record.steps if step.state == "cached"} - taken)
    if unknown:
        raise UserError(
            f"{path}: {', '.join(unknown)} came from the cache, so that nobody knows what they take; "
            "run again with --fresh into another folder"
        )
    return _measured(record, board)


def _measured(record: RunRecord, board: Leaderboard) -> MeasuredRun:
    before: list[Work] = []
    after: list[Work] = []
    climbs: dict[str, list[Work]] = {}
    for step in record.steps:
        # What the cache gave in a whole run, it gives on a cluster too; it takes no pod.
        if step.state != "done":
            continue
        if step.rung:
            climbs.setdefault(step.rung, []).append(_work(step))
        else:
            (after if climbs else before).append(_work(step))
    # A rung that was only decided about was not climbed.
    climbed = {rung: tuple(works) for rung, works in climbs.items() if any(work.step != "decide" for work in works)}
    met = {row.rung for row in board.candidates if row.meets_goal and not row.reference}
    return MeasuredRun(
        name=record.job,
        before=tuple(before),
        climbs=climbed,
        after=tuple(after),
        met_at=next((rung for rung in climbed if rung in met), None),
    )


def _work(step: StepRecord) -> Work:
    return Work(step.rung, step.step, step.seconds)
