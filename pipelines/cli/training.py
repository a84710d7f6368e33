"""`hasten amp`, `hasten backbone`, `hasten family`, `hasten distill`: a rung that trains, alone."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app
from pipelines.cli.steps import _STEPS, Json, Out, _progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from components.core.contracts.job import Job
    from components.core.contracts.training import TrainingCard

    Rung = Callable[[Job, Path, Path], tuple[TrainingCard, Job]]

JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job.", show_default=False)]
_SIGNALLED = 128


@app.command(rich_help_panel=_STEPS)
def amp(job_file: JobFile, out: Out, as_json: Json = False) -> None:
    """Go on training a job's model in mixed precision; its `training` says how.

    Ctrl-C stops at the next step with a checkpoint; the same command goes on from there.

    **Example**

    `hasten amp job.yaml --out work/trained`
    """
    from components.amp.run import run_amp

    _alone("amp", run_amp, job_file, out, as_json=as_json)


@app.command(rich_help_panel=_STEPS)
def backbone(job_file: JobFile, out: Out, as_json: Json = False) -> None:
    """Time a job's model with many untrained backbones, train the few that can win; its `backbone` says which.

    Ctrl-C stops; the same command neither probes nor trains anything again.

    **Example**

    `hasten backbone job.yaml --out work/searched`
    """
    from components.backbone.run import run_backbone

    _alone("backbone", run_backbone, job_file, out, as_json=as_json)


@app.command(rich_help_panel=_STEPS)
def family(job_file: JobFile, out: Out, as_json: Json = False) -> None:
    """Time untrained models of other families, sizes and resolutions, train the few that can win.

    The job's `family` says which: YOLO, EfficientDet, SSDLite, RetinaNet, FCOS. Ctrl-C stops; the same command neither
    probes nor trains anything again.

    **Example**

    `hasten family job.yaml --out work/searched`
    """
    from components.family.run import run_family

    _alone("family", run_family, job_file, out, as_json=as_json)


@app.command(rich_help_panel=_STEPS)
def distill(job_file: JobFile, out: Out, as_json: Json = False) -> None:
    """Teach a small student what a job's model, or several, say; its `distill` says who learns from whom.

    Ctrl-C stops at the next step with a checkpoint; the same command goes on from there, and asks no teacher twice.

    **Example**

    `hasten distill job.yaml --out work/student`
    """
    from components.distill.run import run_distill

    _alone("distill", run_distill, job_file, out, as_json=as_json)


def _alone(name: str, rung: "Rung", job_file: Path, out: Path, *, as_json: bool) -> None:
    """Runs a rung on a job and leaves its bundle in `out`."""
    from components.core.contracts.job import Rung as LadderRung
    from components.core.contracts.variant import Status
    from components.core.errors import StepError
    from components.core.job_file import read_job
    from components.core.training.stopping import StoppedError
    from pipelines.ladder.recipe import check_candidates, check_factory
    from pipelines.local.run import search_path
    from pipelines.single_step import bundle_folder, output_folder

    path = search_path(job_file.resolve().parent)
    sys.path[:] = list(dict.fromkeys([*path, *sys.path]))
    os.environ["PYTHONPATH"] = os.pathsep.join(path)  # of the processes that measure, and of those that build
    job = read_job(job_file)
    check_factory(job)
    check_candidates(job, [LadderRung(name)])
    try:
        with _progress(name), output_folder(out) as folder, bundle_folder(job) as bundle:
            card, _ = rung(job, bundle, folder / "trained")
            if card.status is not Status.OK:
                raise StepError(f"{name}: {card.status}: {card.reason}")
            for made in (folder / "trained").iterdir():
                made.rename(folder / made.name)
            (folder / "trained").rmdir()
    except StoppedError as stopped:
        typer.echo(f"hasten: {name}: {stopped}", err=True)
        raise typer.Exit(_SIGNALLED + stopped.signal_number) from None
    typer.echo(card.model_dump_json(indent=2) if as_json else f"{out}: {_words(card)}")


def _words(card: "TrainingCard") -> str:
    from components.core.formats import fraction, milliseconds, times

    words = [f"{card.search.winner}: {card.search.why}"] if card.search else []
    words += [f"{card.steps} of {card.planned_steps} steps in {card.precision} on {card.device}"]
    if card.step_ms:
        words.append(f"{milliseconds(card.step_ms)} a step")
    if card.step_speedup:
        words.append(f"{times(card.step_speedup)} as fast as in FP32")
    for name, after in (card.accuracy_after or {}).items():
        before = (card.accuracy_before or {}).get(name)
        words.append(
            f"{name} {fraction(before) if before is not None else '?'} -> {fraction(after)} on what was held back"
        )
    lessons = card.lessons
    for whose, accuracies in (
        ("the teachers", lessons and lessons.teachers_accuracy),
        ("the same student on labels alone", lessons and lessons.accuracy_alone),
    ):
        words += [f"{whose}: {name} {fraction(value)}" for name, value in (accuracies or {}).items()]
    return "; ".join(words)
