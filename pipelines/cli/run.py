"""`hasten run`: from the job file to the leaderboard."""

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app


@app.command()
def run(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job: model, data, target and goal.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results. Default: `runs/<job name>`.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="`stop-when-met` or `exhaustive`. Default: as the job says.", show_default=False)
    ] = "",
    rungs: Annotated[
        str, typer.Option(help="Comma-separated, e.g. `int8,fp16`. Default: as the job says.", show_default=False)
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the final leaderboard as JSON on stdout, and nothing else there.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the step cache. Default: `$HASTEN_CACHE` or `~/.cache/hasten`."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Take up the folder's last run even if it finished: what it measured counts, unless model, data, job "
            "or code changed. Without it a finished run is measured again.",
        ),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do every step again, whatever the cache holds.")] = False,
) -> int:
    """Climb the ladder: make the job's model fast enough, measured on this machine.

    Steps: fetch, export, a benchmark of the model as it is; then, rung by rung until the goal is met, surgery, the
    rung's technique, engine and benchmark; then the leaderboard, the report and, if the job says where, publishing.

    Run it again after a crash, a Ctrl-C or a reboot: finished steps are not done twice. A run that finished is measured
    again on the models that it made, or with `--resume` not at all.

    **Examples**

    `hasten run pipelines/examples/trees.yaml`

    `hasten run job.yaml --mode exhaustive --out runs/all-rungs`

    `hasten run job.yaml --json | jq .winner`

    **Exit codes**: 0 goal met, 3 goal not met, 2 bad input, 1 internal error.
    """
    import psutil

    from components.core.job_file import read_job
    from components.core.s3 import cache_folder
    from components.fetch.sources import check_sources
    from components.publish.run import check_destination
    from pipelines.ladder.recipe import check_candidates, check_factory, overridden
    from pipelines.local.run import InterruptedRunError, Options, run_ladder, search_path

    job = overridden(read_job(job_file), mode, rungs)
    folder = job_file.resolve().parent
    sys.path[:] = list(dict.fromkeys([*search_path(folder), *sys.path]))
    check_factory(job)
    check_candidates(job, job.ladder.rungs)
    check_sources(job)
    check_destination(job)
    target = out or Path("runs") / job.name
    check_folder(target)
    command = _command(job_file, target, mode, rungs)
    options = Options(
        out=target,
        cache=cache or cache_folder(),
        command=command,
        fresh=fresh,
        resume=resume,
        job_folder=folder,
        began=psutil.Process().create_time(),
    )
    from pipelines.cli import result

    with result.view(f"hasten {job.name}") as shown:
        try:
            ended = run_ladder(job, options, shown)
        except InterruptedRunError as stop:
            again = f"; the same command goes on where it stopped: {command}"
            print(f"hasten: stopped ({signal.Signals(stop.signal_number).name}){again}", file=sys.stderr)
            return 128 + stop.signal_number
    if as_json:
        print(ended.board.model_dump_json(indent=2))
    result.print_result(ended, target, to=sys.stderr if as_json else sys.stdout)
    return ended.exit_code


def check_folder(folder: Path) -> None:
    """Refuses a place where no results can be written.

    Raises:
        UserError: it is a file, or may not be written.
    """
    from components.core.errors import UserError

    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"--out: {existing} is a file; give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--out: {existing} cannot be written; give a folder of your own")


def _command(job_file: Path, out: Path, mode: str, rungs: str) -> str:
    """The command that does this run again; part of the report."""
    parts = ["hasten", "run", str(job_file), "--out", str(out)]
    parts += ["--mode", mode] if mode else []
    parts += ["--rungs", rungs] if rungs else []
    return shlex.join(parts)
