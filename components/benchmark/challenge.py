"""Champion against challenger: both timed in the same rounds, both scored on the same test images."""

from pathlib import Path

from components.benchmark.measure import Entry, Measured, Progress, Track, measure
from components.benchmark.measurement import conditions, write_measurement
from components.benchmark.process import WorkerError
from components.benchmark.rounds import Pace
from components.core.contracts.champion import FILES, Challenge, Champion, Side
from components.core.contracts.job import Job, Metric, Retrain
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.variant import Variant
from components.core.errors import StepError, UserError
from components.core.machine import usable_cores
from components.core.runtimes.interface import availability
from components.core.stepping import progress as step_progress
from components.core.storage import materialize
from components.core.tasks.adapter import read_split, task_adapter
from components.core.tasks.detection import DetectionSplit, read_detections
from components.core.tasks.detection_bootstrap import difference


def run_challenge(
    job: Job, bundle: Path, champion: Path, board: Leaderboard, out: Path, progress: Progress | None = None
) -> Challenge:
    """Measures the board's winner against the version in production.

    Args:
        job: target, budget and the goal's metric.
        bundle: `fetch`'s folder, with the test split.
        champion: what the step `champion` made.
        board: the final board of the retrained model; without a winner nothing is measured.
        out: gets `measurement.json`, `detections/` and `logs/`.
        progress: told what is going on; default: the step's own.

    Raises:
        UserError: the champion's runtime cannot run here.
        StepError: the champion does not run.
    """
    metric = job.goal.metric
    if board.winner is None:
        return Challenge(reason=board.why, metric=metric)
    holder = Champion.read(champion)
    if reason := availability(holder.variant.runtime, job.target.device):
        raise UserError(
            f"the champion {holder.version} runs in {holder.variant.runtime}, which cannot be timed here: {reason}; "
            "run where it can be"
        )
    winner = board.row(board.winner)
    threads = job.target.threads or usable_cores()
    first = Entry(holder.variant, champion / FILES, threads)
    second = Entry(_challenger(winner), materialize(str(winner.uri)), threads)
    track = _track(job, bundle, out)
    if not isinstance(track.split, DetectionSplit):
        raise UserError(f"task: given {job.task}, accepted for retraining: detection")
    out.mkdir(parents=True, exist_ok=True)
    before = conditions()
    try:
        results = measure(first, [second], track, progress or step_progress)
    except WorkerError as error:
        raise StepError(f"the champion {holder.version} could not be measured: {error}") from error
    write_measurement(out, {"champion": holder.version, "challenger": winner.id}, before, results)
    ours, theirs = results[second.variant.id], results[first.variant.id]
    if ours.failure or ours.detections is None or theirs.detections is None:
        return Challenge(reason=f"the challenger {winner.id} could not be measured: {ours.failure}", metric=metric)
    (progress or step_progress)("comparing the accuracies", None, None)
    gain = difference(
        read_detections(ours.detections),
        read_detections(theirs.detections),
        track.split,
        metric,
        (job.retrain or Retrain()).resamples,
        job.budget.seed,
    )
    return Challenge(
        metric=metric,
        images=len(track.split.images),
        champion=_side(theirs, holder.version, metric),
        challenger=_side(ours, winner.id, metric),
        accuracy=gain,
        speedup=ours.speedup,
    )


def _challenger(winner: Candidate) -> Variant:
    return Variant(
        id=f"challenger-{winner.id}",
        runtime=winner.runtime,
        techniques=winner.techniques,
        file=winner.file,
        options=winner.options,
    )


def _track(job: Job, bundle: Path, out: Path) -> Track:
    adapter = task_adapter(job, bundle)
    return Track(
        adapter=adapter,
        split=read_split(adapter, bundle, "test"),
        input_shape=job.target.input_shape,
        out=out,
        pace=Pace(job.budget.rounds, job.budget.round_time, job.budget.seed),
        job=job,
        bundle=bundle,
    )


def _side(result: Measured, name: str, metric: Metric) -> Side:
    if result.latency is None:
        raise ValueError(f"{name} was not timed")
    return Side(id=name, accuracy=result.scores[metric], latency_ms=result.latency, stable=result.stable)
