"""`hasten retrain`: the published model trained again on new data, and replaced if the new one is better."""

import shlex
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import app

if TYPE_CHECKING:
    from pipelines.retrain.local import Retrained


@app.command()
def retrain(
    job_file: Annotated[
        Path,
        typer.Argument(metavar="JOB.yaml", help="The job, with `publish` and `retrain`; its data are the new ones."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results. Default: `runs/<job name>-retrain`.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as JSON on stdout, and nothing else there.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the step cache. Default: `$HASTEN_CACHE` or `~/.cache/hasten`.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Take up the folder's last run even if it finished: what it measured counts."),
    ] = False,
) -> int:
    """Train the model in production again on new data; replace it only by one that is better beyond noise.

    Steps: the version in production is taken out of the store; the new data are fetched and compared with those that it
    was trained on; it is trained on (`amp`) and compressed like any model; what comes out challenges the version in
    production, both timed in the same rounds and scored on the same test images. If it is better with its whole 95%
    interval, and within the goal, it is published. Else the run ends well and says why not.

    The first version comes from `hasten run` with the same job. `hasten rollback` goes back.

    **Examples**

    `hasten retrain job.yaml`

    `hasten retrain job.yaml --json | jq .reason`

    **Exit codes**: 0 replaced, 3 the version in production stays, 2 bad input, 1 internal error.
    """
    import psutil

    from components.core.job_file import read_job
    from components.core.s3 import cache_folder
    from components.fetch.sources import check_sources
    from components.publish.champion import current_version
    from components.publish.run import check_destination
    from pipelines.cli import result
    from pipelines.cli.run import check_folder
    from pipelines.ladder.recipe import check_factory
    from pipelines.local.run import InterruptedRunError, Options, search_path
    from pipelines.retrain.checks import check_retraining
    from pipelines.retrain.local import run_retraining

    job = read_job(job_file)
    check_retraining(job)
    folder = job_file.resolve().parent
    sys.path[:] = list(dict.fromkeys([*search_path(folder), *sys.path]))
    check_factory(job)
    check_sources(job)
    check_destination(job)
    current_version(job)
    target = out or Path("runs") / f"{job.name}-retrain"
    check_folder(target)
    command = shlex.join(["hasten", "retrain", str(job_file), "--out", str(target)])
    options = Options(
        out=target,
        cache=cache or cache_folder(),
        command=command,
        resume=resume,
        job_folder=folder,
        began=psutil.Process().create_time(),
    )
    with result.view(f"hasten retrain {job.name}") as shown:
        try:
            ended = run_retraining(job, options, shown)
        except InterruptedRunError as stop:
            again = f"; the same command goes on where it stopped: {command}"
            print(f"hasten: stopped ({signal.Signals(stop.signal_number).name}){again}", file=sys.stderr)
            return 128 + stop.signal_number
    if as_json:
        print(ended.outcome.model_dump_json(indent=2))
    _show(ended, target, to=sys.stderr if as_json else sys.stdout)
    return ended.exit_code


def _show(ended: "Retrained", out: Path, to: IO[str]) -> None:
    from components.core.contracts.champion import Verdict
    from pipelines.retrain.local import CARD, OUTCOME

    outcome = ended.outcome
    promoted = outcome.verdict is Verdict.PROMOTE
    print(f"{'Replaced' if promoted else 'Kept'} {outcome.champion}: {outcome.reason}", file=to)
    print(f"{'outcome:':<13}{out / OUTCOME}", file=to)
    print(f"{'new data:':<13}{out / CARD[1]}", file=to)
    if outcome.report_uri:
        print(f"{'report:':<13}{out / 'report.html'}", file=to)
    if outcome.published_uri:
        print(f"{'published:':<13}{outcome.published_uri}", file=to)
